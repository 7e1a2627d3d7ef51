"""Bad data and bad settings of tasks are one sentence, which names the row."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from glm_jax.cli.main import main
from glm_jax.errors import UsageError
from glm_jax.finetune.vocabulary import check_vocabulary

RTE = {"premise": "a", "hypothesis": "b", "label": "entailment", "idx": 0}
BOOLQ = {"passage": "a", "question": "b", "label": True, "idx": 0}
WSC = {
    **{"text": "Ann saw it .", "label": True, "idx": 0},
    "target": {"span1_text": "Ann", "span1_index": 0, "span2_text": "it", "span2_index": 2},
}
MULTIRC = {
    "idx": 0,
    "passage": {
        "text": "a",
        "questions": [{"question": "b", "idx": 0, "answers": [{"text": "c", "idx": 0}]}],
    },
}
RECORD = {
    "idx": 0,
    "passage": {"text": "Ann ran.", "entities": [{"start": 0, "end": 2}]},
    "qas": [{"query": "@placeholder ran", "idx": 0, "answers": [{"text": "Ann"}]}],
}
RACE = {"id": "1", "article": "a", "questions": ["b"], "options": [["c", "d"]], "answers": ["A"]}
CHOICE = {"inputs_pretokenized": "a", "choices_pretokenized": ["b", "c"], "label": 0}


def without(row: dict, name: str) -> dict:
    return {key: value for key, value in row.items() if key != name}


def line(row: object) -> str:
    return row if isinstance(row, str) else json.dumps(row)


# Name; task; file; its rows, the last of which is bad; what the sentence says.
BAD_ROWS = [
    ("a missing field", "rte", "val.jsonl", [RTE, without(RTE, "hypothesis")],
     "val.jsonl, line 2: no field 'hypothesis'; found premise, label, idx"),
    ("no text", "rte", "val.jsonl", [{**RTE, "premise": 3}],
     "val.jsonl, line 1: the field 'premise' is 3; expected text"),
    ("null", "boolq", "val.jsonl", [{**BOOLQ, "question": None}],
     "the field 'question' is null; expected text"),
    ("a missing index", "boolq", "val.jsonl", [without(BOOLQ, "idx")], "line 1: no field 'idx'"),
    ("no JSON", "cb", "val.jsonl", [RTE, '{"premise": "a",'], "val.jsonl, line 2: no JSON object:"),
    ("a list", "cb", "val.jsonl", [["a"]], "line 1: expected a JSON object, found list"),
    ("nested too deeply", "cb", "val.jsonl", ["[" * 100_000], "no JSON object: nested too deeply"),
    ("half a character", "cb", "val.jsonl", [{**RTE, "premise": "\ud800"}], "a lone surrogate"),
    ("no UTF-8", "rte", "val.jsonl", [b"\xff\xfe"], "val.jsonl is not UTF-8 text"),
    ("an unknown label", "rte", "val.jsonl", [{**RTE, "label": "maybe"}],
     "example dev-0 of rte has the label 'maybe'; expected one of 'entailment', 'not_entailment'"),
    ("a label of another type", "copa", "val.jsonl",
     [{**dict.fromkeys(("premise", "choice1", "choice2"), "a"), "question": "cause", "label": "0",
       "idx": 0}],
     "has the label '0'; expected one of 0, 1"),
    ("no rows", "rte", "val.jsonl", [], "the split dev of task rte in"),
    ("a span of another type", "wsc", "val.jsonl",
     [WSC, {**WSC, "target": {**WSC["target"], "span2_index": "2"}}],
     "val.jsonl, line 2: no row of task wsc: TypeError"),
    ("a pronoun elsewhere", "wsc", "val.jsonl",
     [{**WSC, "target": {**WSC["target"], "span2_text": "she"}}], "has no 'she' at word 2"),
    ("a nested field", "multirc", "val.jsonl", [{"idx": 0, "passage": {"text": "a"}}],
     "val.jsonl, line 1: no field 'questions'; found text"),
    ("a nested text", "multirc", "val.jsonl",
     [{**MULTIRC, "passage": {**MULTIRC["passage"], "questions": ["b"]}}],
     "val.jsonl, line 1: \"b\" has no field 'question'"),
    ("no placeholder", "record", "val.jsonl",
     [{**RECORD, "qas": [{**RECORD["qas"][0], "query": "who ran"}]}],
     "example dev-p0-q0 of task record: expected one @placeholder in the query 'who ran'"),
    ("no entities", "record", "val.jsonl",
     [{**RECORD, "passage": {"text": "Ann ran.", "entities": []}}], "has no entities to choose"),
    ("fields of a table", "sst2", "dev.tsv", ["sentence\tlabel", "a\t0\t1"],
     "dev.tsv, line 2: 3 fields separated by tabs; expected the header's 2"),
    ("a column of a table", "cola", "dev.tsv", ["a\t1"], "dev.tsv, line 1: no field '3'"),
    ("a header of a table", "sst2", "dev.tsv", ["text\tlabel", "a\t0"],
     "dev.tsv, line 2: no field 'sentence'; found text, label"),
    ("an empty table", "sst2", "dev.tsv", [], "dev.tsv is empty"),
    ("a quoted table", "agnews", "test.csv", ['"1","a"'], "test.csv, line 1: no field '2'"),
    ("an answer that is no option", "race", "dev/middle/1.txt", [{**RACE, "answers": ["C"]}],
     "1.txt, line 1: question 0 has 2 options and the answer 'C'"),
    ("a label that is no choice", "multichoice", "a.jsonl", [CHOICE, {**CHOICE, "label": 2}],
     "a.jsonl, line 2: label 2 of 2 choices"),
    ("no choices", "multichoice", "a.jsonl", [{**CHOICE, "choices_pretokenized": []}],
     "a.jsonl, line 1: choices_pretokenized is []"),
    ("a choice that is no text", "multichoice", "a.jsonl",
     [{**CHOICE, "choices_pretokenized": [1, 2]}], "choices_pretokenized.*' is 1; expected text"),
    ("a choice that is too long", "multichoice", "a.jsonl",
     [{**CHOICE, "choices_pretokenized": ["a", "b" * 40]}],
     "example 0 of task multichoice: a choice of 40 tokens needs a sequence length of 43"),
    ("no files of choices", "multichoice", "a.txt", [CHOICE],
     "matches no file that ends in .jsonl"),
]  # fmt: skip


def evaluate(tiny_task: Path, task: str, data: Path, *flags: str) -> int:
    checkpoint = str(tiny_task / "checkpoint")
    settings = ["--gin.task.sequence_length=32", *flags]
    return main(["evaluate", checkpoint, f"--task={task}", f"--data={data}", *settings])


@pytest.mark.parametrize(
    ("task", "file", "rows", "sentence"),
    [case[1:] for case in BAD_ROWS],
    ids=[case[0] for case in BAD_ROWS],
)
def test_a_bad_row_is_named(tiny_task, tmp_path, capsys, task, file, rows, sentence):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, bytes) else line(row).encode() for row in rows]
    path.write_bytes(b"".join(row + b"\n" for row in lines))
    if task == "race":
        (tmp_path / "dev/high").mkdir()
        (tmp_path / "dev/high/1.txt").write_text(json.dumps(RACE))
    words = "--gin.task.multi_token=True"
    assert evaluate(tiny_task, task, tmp_path, words) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1, error


@pytest.mark.parametrize(
    ("task", "flags", "sentence"),
    [
        ("rte", [], "val.jsonl is missing, which task rte needs for its split dev; published at "
                    "https://super.gluebenchmark.com"),
        ("tnews", [], "dev.json is missing, which task tnews needs for its split dev; published at "
                      "https://github.com/CLUEbenchmark/CLUE"),
        ("agnews", ["--split=test"], "task agnews has no split 'test'; expected one of train, dev"),
        ("yelp", [], "there is no task 'yelp'; did you mean yelp-full?"),
        ("nothing", [], "there is no task 'nothing'; there are copa, wsc, "),
        ("rte", ["--gin.task.pattern=5"], "task.pattern is 5; task rte has 0 to 4"),
        ("multichoice", ["--gin.task.cloze=False"], "has no inputs of a head"),
        ("rte", ["--gin.prompt.num_tokens=2", "--gin.task.cloze=False"], "task.cloze is False"),
        ("sst2", ["--gin.prompt.num_tokens=2"], "but the patterns of task sst2 have no slots"),
        ("rte", ["--gin.finetune.attention='flash'"], "finetune.attention is 'flash'; expected"),
        ("my_task.py", [], "the file of a task, my_task.py, does not exist"),
        ("no_such_module:a", [], "the task no_such_module can't be imported: ModuleNotFoundError"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named(tiny_task, tmp_path, capsys, task, flags, sentence):
    assert evaluate(tiny_task, task, tmp_path, *flags) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1, error


def test_a_task_with_one_answer_to_each_question_is_refused(tiny_task, capsys):
    settings = ["name=squad", "patterns=()", "words={}"]
    command = ["finetune", f"--gin_file={tiny_task / 'run.gin'}"]
    assert main([*command, *(f"--gin.task.{setting}" for setting in settings)]) == 2
    error = capsys.readouterr().err
    assert "task squad has one answer to each question, so that nothing is chosen" in error


@pytest.mark.parametrize(
    ("settings", "row", "sentence"),
    [
        (["patterns=('{text} {more} [MASK]',)"], {}, "dev.jsonl, line 1: no field 'more'; found t"),
        (["patterns=('{text}',)"], {}, "has 0 masks; expected one [MASK]"),
        (["patterns=('[MASK] {text} [MASK]',)"], {}, "has 2 masks; expected one [MASK]"),
        (["patterns=('the [MASK]',)"], {}, "has no field such as {text}"),
        (["patterns=('{te xt} {text} [MASK]',)"], {}, "has a brace that is part of no field"),
        (["patterns=()"], {}, "task.patterns is empty"),
        (["words={'0': 'n'}"], {}, "expected a different word for each of at least two labels"),
        (["words={'0': 'n', '1': 'n'}"], {}, "expected a different word for each"),
        ([], {"label": "2"}, "has the label '2'; expected one of '0', '1'"),
        ([], {"label": ["0"]}, "the label 'label' is ['0']; expected text or a number"),
        ([], {"text": None}, "dev.jsonl, line 1: the field 'text' is null; expected text"),
        ([], {"text": {"a": 1}}, "the field 'text' is {'a': 1}; expected text"),
        (["words={'0': 'n', '1': 'yes'}"], {}, "the verbalizer 'yes' of label '1' is 3 tokens"),
        (["patterns=('{text!}[MASK]',)"], {"text": "x" * 40},
         "example dev-0 of task custom: the parts that can't be shortened need a sequence length "
         "of 44, more than 32"),
    ],
)  # fmt: skip
def test_a_custom_task_that_does_not_fit_is_named(
    tiny_task, tmp_path, capsys, settings, row, sentence
):
    (tmp_path / "dev.jsonl").write_text(json.dumps({"text": "a", "label": "0", **row}) + "\n")
    defaults = ["patterns=('{text}[MASK]',)", "words={'0': 'n', '1': 'y'}"]
    flags = [f"--gin.task.{setting}" for setting in (*defaults, *settings)]
    assert evaluate(tiny_task, "custom", tmp_path, *flags) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1, error


def test_a_checkpoint_with_another_vocabulary_is_named(tiny_task, shared, capsys):
    kind = "--gin.tokenizer.kind=bert"
    vocabulary = shared / "vocabs/bert-large-uncased-vocab.txt"
    files = f"--gin.tokenizer.files=('{vocabulary}',)"
    assert evaluate(tiny_task, "rte", shared / "goldens/f_finetune/raw/RTE", kind, files) == 2
    error = capsys.readouterr().err
    assert "has a tokenizer with it, which is another one than tokenizer.kind = 'bert'" in error
    assert error.count("\n") == 1


def test_a_vocabulary_that_is_too_small_for_the_checkpoint_is_named():
    bert: Any = SimpleNamespace(vocab_size=30525, padded_vocab_size=30592)
    check_vocabulary(bert, 30592, "c")
    check_vocabulary(bert, 30 * 1024, "c")  # padded for eight model-parallel ranks
    with pytest.raises(UsageError, match="has 30525 tokens, but c has 50304 rows"):
        check_vocabulary(bert, 50304, "c")
    with pytest.raises(UsageError, match="has 30525 tokens, more than the 21128 of c"):
        check_vocabulary(bert, 21128, "c")
