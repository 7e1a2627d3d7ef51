"""Bad data and settings of tasks that write or score texts: one sentence, before work starts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from glm_jax.cli.main import main
from glm_jax.errors import UsageError
from glm_jax.language_model.evaluate import check_tokens
from glm_jax.seq2seq.judge import check_packages
from glm_jax.seq2seq.read import check_tokenizer
from glm_jax.seq2seq.registry import SEQ2SEQ_TASKS
from tests.seq2seq.test_evaluate import SMALL

PAIR = json.dumps({"source": "a", "target": "b"})
BEFORE = "XSum-TRAINING-DEV-TEST-SPLIT-90-5-5.json"
XSUM = {BEFORE: '{"validation": ["1"]}'}


def squad(question: Any = None, **fields: Any) -> str:
    asked = {"id": "q", "question": "when", "answers": [{"text": "dawn"}]}
    paragraph = {"context": "at dawn", "qas": [asked if question is None else question], **fields}
    return json.dumps({"data": [{"paragraphs": [paragraph]}]})


# Name; task; the files; what the sentence says.
BAD_FILES = [
    ("an empty article", "cnn_dm", {"val.source": "a\n \nb\n", "val.target": "x\ny\nz\n"},
     "val.source, line 2: the source is empty"),
    ("an empty source of an object", "customization",
     {"val.jsonl": f'{PAIR}\n{{"source": " ", "target": "b"}}\n'},
     "val.jsonl, line 2: the source is empty"),
    ("an article that is only a separator", "cnn_dm",
     {"val.source": "<S_SEP>\n", "val.target": "x\n"}, "val.source, line 1: the source is empty"),
    ("an empty passage", "squad", {"dev-v2.0.json": squad(context=" ")},
     "dev-v2.0.json is not in SQuAD's format: context is ' '; expected text"),
    ("an empty question", "cmrc", {"dev.json": squad({"id": "q", "question": ""})},
     "question is ''; expected text"),
    ("an article without its text", "xsum", {**XSUM, "1.summary": "[SN]RESTBODY[SN]\na\n"},
     "1.summary has no text in the section FIRST-SENTENCE"),
    ("a missing article", "xsum", XSUM, "1.summary is missing"),
    ("a missing list of articles", "xsum", {BEFORE: '{"train": []}'}, "has no list 'validation'"),
    ("a list that is none", "xsum", {BEFORE: '{"validation": 1}'}, "has no list 'validation'"),
    ("no targets", "cnn_dm", {"val.source": "a\n"}, "val.target is missing"),
    ("a missing reference", "gigaword", {"val.source": "a\nb\n", "val.target": "x\n\n"},
     "example dev-1 of task gigaword has no reference, but others have one"),
    ("a missing target of an object", "customization", {"val.jsonl": f'{PAIR}\n{{"source": "a"}}'},
     "val.jsonl, line 2: no field 'target', which the split dev needs"),
    ("a target that is no text", "customization", {"val.jsonl": '{"source": "a", "target": 1}'},
     "val.jsonl, line 1: expected text in the field 'target', found 1"),
    ("a source that is no text", "customization", {"val.jsonl": '{"source": [], "target": "b"}'},
     "val.jsonl, line 1: expected text in the field 'source', found []"),
    ("more sources than targets", "cnn_dm", {"val.source": "a\nb\n", "val.target": "x\n"},
     "val.source has 2 lines and"),
    ("a broken line", "customization", {"val.jsonl": f'{PAIR}\n{{"source": "a\n'},
     "val.jsonl, line 2: no JSON object: "),
    ("a line of another type", "customization", {"val.jsonl": f"{PAIR}\n[1]\n"},
     "val.jsonl, line 2: expected a JSON object, found list"),
    ("half a character", "customization",
     {"val.jsonl": '{"source": "\\ud800", "target": "b"}'}, "line 1: a lone surrogate"),
    ("no UTF-8", "cnn_dm", {"val.source": b"\xff\n", "val.target": "x\n"},
     "val.source is not UTF-8 text: invalid start byte at byte 0"),
    ("targets without UTF-8", "cnn_dm", {"val.source": "a\n", "val.target": b"\xe4\n"},
     "val.target is not UTF-8 text"),
    ("an empty file", "customization", {"val.jsonl": ""}, "the split dev of task customization"),
    ("empty files", "cnn_dm", {"val.source": "", "val.target": ""}, "cnn_dm has no examples in"),
    ("an empty object", "squad", {"dev-v2.0.json": ""}, "dev-v2.0.json: no JSON object: "),
    ("another object", "squad", {"dev-v2.0.json": "{}"}, "dev-v2.0.json: no field 'data'"),
    ("another format", "squad_v1", {"dev-v1.1.json": '{"data": 1}'}, "is not in SQuAD's format"),
    ("a question of another type", "squad", {"dev-v2.0.json": squad("when")},
     "is not in SQuAD's format"),
    ("an answer of another type", "squad_generation",
     {"dev.json": squad({"id": "q", "question": "when", "answers": ["dawn"]})},
     "is not in SQuAD's format"),
    ("a question that is too long", "squad",
     {"dev-v2.0.json": squad({"id": "q", "question": "w" * 50, "answers": []})},
     "example dev-0: the question leaves no space for its passage in a source length of 40"),
    ("the files of another task", "xsum", {"val.source": "a\n", "val.target": "x\n"},
     "the folder has files of cnn_dm, cnn_dm_original, gigaword, customization"),
    ("no files", "xsum", {}, f"{BEFORE} is missing, which task xsum needs for its split dev; "
     "published at https://github.com/EdinburghNLP/XSum"),
    ("no blank", "extraction", {"valid.source": "a\n", "valid.target": "x\n"},
     "example dev-0 of task extraction has 0 [MASK] in its source, but 1 parts in its target"),
    ("a blank that is too far back", "extraction",
     {"valid.source": f"{'a' * 60} [MASK]\n", "valid.target": "x\n"},
     "example dev-0 of task extraction: the text has no [MASK] among its first 40 tokens"),
    ("more blanks than parts", "extraction",
     {"valid.source": "[MASK]\n[MASK] and [MASK]\n", "valid.target": "x\ny\n"},
     "example dev-1 of task extraction has 2 [MASK] in its source, but 1 parts in its target"),
    ("more parts than blanks", "extraction",
     {"valid.source": "a [MASK]\n", "valid.target": "x|y\n"},
     "example dev-0 of task extraction has 1 [MASK] in its source, but 2 parts in its target"),
]  # fmt: skip


@pytest.fixture
def evaluate(tiny_pairs, tmp_path, capsys):
    """The sentence that an evaluation is refused with."""

    def evaluate(task: str, *flags: str) -> str:
        outputs = tmp_path / "outputs.jsonl"
        command = ["evaluate", str(tiny_pairs / "checkpoint"), f"--task={task}"]
        assert main([*command, f"--outputs={outputs}", *flags]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and not outputs.exists(), error
        return error

    return evaluate


@pytest.mark.parametrize(
    ("task", "files", "sentence"), [case[1:] for case in BAD_FILES], ids=[c[0] for c in BAD_FILES]
)
def test_bad_files_are_named(evaluate, tmp_path, task, files, sentence):
    data = tmp_path / "data"
    data.mkdir()
    for name, content in files.items():
        (data / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert sentence in evaluate(task, f"--data={data}", *SMALL)


@pytest.mark.parametrize(
    ("task", "flags", "sentence"),
    [
        ("customization", ["seq2seq.source_length=100"],
         "seq2seq.source_length 100 and seq2seq.target_length 8 make 108 positions, but the "
         "network has only 64"),
        ("customization", ["seq2seq.source_length=7"], "seq2seq.source_length is 7"),
        ("customization", ["seq2seq.target_length=0"], "seq2seq.target_length is 0"),
        ("customization", ["generation.beams=0"], "generation.beams is 0"),
        ("customization", ["generation.min_length=9"], "generation.min_length is 9, but seq2seq"),
        ("customization", ["generation.length_penalty=-1"], "generation.length_penalty is -1"),
        ("customization", ["generation.no_repeat_ngram=-1"], "generation.no_repeat_ngram is -1"),
        ("customisation", [], "there is no task 'customisation'; did you mean customization or"),
        ("xsums", [], "there is no task 'xsums'; did you mean xsum?"),
        ("wikitxt", [], "there is no task 'wikitxt'; did you mean wikitext?"),
    ],
)  # fmt: skip
def test_bad_settings_are_named(evaluate, tiny_pairs, task, flags, sentence):
    data = f"--data={tiny_pairs / 'data'}"
    assert sentence in evaluate(task, data, *SMALL, *(f"--gin.{flag}" for flag in flags))


def test_a_missing_checkpoint_is_named(tmp_path, capsys):
    for task in ("xsum", "rte", "ptb"):
        assert main(["evaluate", str(tmp_path / "no"), f"--task={task}", "--data=x"]) == 2
        error = capsys.readouterr().err
        assert "there is no checkpoint at" in error and error.count("\n") == 1


def test_tokenizers_without_a_token_are_refused():
    class Lacking:
        special: dict[str, int]

        def __init__(self, name: str):
            names = ("MASK", "ENC", "eos", "sop", "eop", "pad")
            self.special = {other: 1 for other in names if other != name}

    for name in ("MASK", "sop", "eop"):
        with pytest.raises(UsageError, match=f"no token {name}"):
            check_tokenizer(Lacking(name))  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match="no token MASK"):
        check_tokens(Lacking("MASK"))  # pyright: ignore[reportArgumentType]


def test_a_missing_package_is_named_before_outputs_are_written(monkeypatch):
    import sys

    check_packages(SEQ2SEQ_TASKS["xsum"])
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(UsageError, match="BLEU needs the package sacrebleu"):
        check_packages(SEQ2SEQ_TASKS["xsum"])
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(UsageError, match="ROUGE needs the package rouge-score"):
        check_packages(SEQ2SEQ_TASKS["xsum"])
    check_packages(SEQ2SEQ_TASKS["squad"])
