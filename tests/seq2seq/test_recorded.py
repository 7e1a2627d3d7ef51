"""Examples, rows, text functions and metrics of the original's sequence-to-sequence tasks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from etils import epath

from glm_jax.seq2seq.catalog.blanks import blank_task
from glm_jax.seq2seq.detokenize import blanks, cnn_dm_source, cnn_dm_target, gigaword
from glm_jax.seq2seq.encode import encode_pair, encode_source, reference_text, split_into_windows
from glm_jax.seq2seq.fix_tokenization import FIXES, fix_blanks, fix_squad
from glm_jax.seq2seq.metrics import answer_scores
from glm_jax.seq2seq.registry import SEQ2SEQ_TASKS
from glm_jax.seq2seq.rouge import original_rouge_scores
from glm_jax.seq2seq.rows import RowLayout, prompt_row
from glm_jax.seq2seq.task import Seq2SeqTask
from glm_jax.tasks import Example
from glm_jax.tasks.sequence import Row
from glm_jax.tasks.text import standardize
from tests.tasks.recorded import FOLDER, NAMES, tokenizer

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="the recorded numbers of the original are not there"
)


def contents(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text())


CASES = contents("seq2seq") if FOLDER.is_dir() else []


def case_name(case: dict) -> str:
    return "-".join([case["task"], case["tokenizer"], case["split"], *case["args"].split()])


def task_of(case: dict) -> Seq2SeqTask:
    if case["task"] != "blank":
        return SEQ2SEQ_TASKS[case["task"]]
    return blank_task(0.3 if "--blank-maskratio" in case["args"] else 0.1)


def examples_of(case: dict) -> list[Example]:
    # The original evaluates SQuAD 1.1 only on windows that have the answer, as it trains.
    split = "train" if case["task"] == "squad_v1" else case["split"]
    task, tok = task_of(case), tokenizer(case["tokenizer"])
    read = task.read(epath.Path(FOLDER / case["data_dir"]), case["split"])
    found = split_into_windows(task, read, tok, case["src_seq_length"], split)
    if case["task"] in ("squad_generation", "cmrc") and case["split"] == "test":
        # The original hides the answers of test splits, and asks for a question about these words.
        found = [replace(e, meta={**e.meta, "answer": "FAKE_ANSWER"}) for e in found]
    return found


def layout_of(case: dict) -> RowLayout:
    return RowLayout(
        tokenizer(case["tokenizer"]).special,
        case["src_seq_length"],
        case["tgt_seq_length"],
        pad_source="--mask-pad-token" not in case["args"],
        block_positions="--no-block-position" not in case["args"],
    )


def rows_of(case: dict, examples: Sequence[Example]) -> Iterator[Row]:
    task, tok, layout = task_of(case), tokenizer(case["tokenizer"]), layout_of(case)
    for example in examples:
        if case["split"] == "train":
            yield encode_pair(task, example, tok, layout)
        else:
            source = encode_source(task, example, tok, layout.source_length)
            yield prompt_row(layout, source)


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_examples_are_as_recorded(case):
    examples, recorded = examples_of(case), case["result"]["examples"]

    def of(record) -> tuple:
        return record["text_a"], record["text_b"], record["idx"], record["guid"].split("-")[1]

    ours = [(e.text_a, e.text_b, e.idx, str(e.guid).split("-")[1]) for e in examples]
    assert ours == [of(record) for record in recorded]


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case["task"] not in ("blank", "squad_generation")],
    ids=case_name,
)
def test_references_are_as_recorded(case):
    # Question generation: the original compares with the answer (a fault), we with the question.
    task, tok = task_of(case), tokenizer(case["tokenizer"])
    references = [reference_text(task, example, tok) for example in examples_of(case)]
    assert references == [record["meta"]["ref"] for record in case["result"]["examples"]]


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in CASES
        # Blanks are drawn by another generator.
        if (case["task"] != "blank" or case["split"] == "test")
        and "--mask-pad-token" not in case["args"]
    ],
    ids=case_name,
)
def test_rows_are_as_recorded(case):
    rows = rows_of(case, examples_of(case))
    for row, sample in zip(rows, case["result"]["samples"], strict=True):
        for name in set(sample) & set(NAMES):
            np.testing.assert_array_equal(row[NAMES[name]], sample[name], name)


@pytest.mark.parametrize(
    "case", [case for case in CASES if "--mask-pad-token" in case["args"]], ids=case_name
)
def test_rows_without_padding_in_the_source_are_the_recorded_ones_that_hide_it(case):
    """The original hides the source's padding by a mask; our rows have none there."""
    source_length = case["src_seq_length"]
    for row, sample in zip(
        rows_of(case, examples_of(case)), case["result"]["samples"], strict=True
    ):
        prefix = int(row["prefix_length"])
        length = len(sample["text"])
        ours = np.r_[:prefix, prefix : prefix + length - source_length]
        theirs = np.r_[:prefix, source_length:length]
        for name in set(sample) & set(NAMES) - {"attention_mask"}:
            expected = np.asarray(sample[name])[..., theirs]
            np.testing.assert_array_equal(row[NAMES[name]][..., ours], expected, name)
        mask = np.asarray(
            [list(map(int, bits)) for bits in sample["attention_mask"]["rows_as_bits"]]
        )
        visible = np.tril(np.ones((len(ours), len(ours)), int))
        visible[:, :prefix] = 1
        np.testing.assert_array_equal(mask[np.ix_(theirs, theirs)], visible)
        assert not mask[np.ix_(theirs, np.arange(prefix, source_length))].any()


@pytest.mark.parametrize(
    "case", [c for c in CASES if c["task"] == "blank" and c["split"] == "train"], ids=case_name
)
def test_random_blanks_hide_the_recorded_share_of_words(case):
    task = task_of(case)
    assert task.draw is not None
    ratio = 0.3 if "--blank-maskratio" in case["args"] else 0.1
    for example in examples_of(case):
        drawn = task.draw(example, np.random.default_rng(0))
        hidden = [word for text in drawn.meta["targets"] for word in text.split()]
        assert len(hidden) == int(len(example.text_a.split()) * ratio)
        filled = drawn.text_a
        for text in drawn.meta["targets"]:
            filled = filled.replace("[MASK]", text, 1)
        assert filled == " ".join(example.text_a.split())
        assert "[MASK] [MASK]" not in drawn.text_a


TEXT_FUNCTIONS = {
    "gigaword_detokenize": gigaword,
    "cnndm_detokenize": cnn_dm_source,
    "cnndm_detokenize_target": cnn_dm_target,
    "blanklm_detokenize": blanks,
    "fix_tokenization_cnn_dm": FIXES["cnn_dm"],
    "fix_tokenization_gigaword": FIXES["gigaword"],
    "fix_tokenization_cnn_dm_org": FIXES["cnn_dm_org"],
    "squad_fix_tokenization": fix_squad,
    "blanklm_fix_tokenization": fix_blanks,
    "punctuation_standardization": standardize,
}


@pytest.mark.parametrize("name", TEXT_FUNCTIONS)
def test_text_functions_are_as_recorded(name):
    recorded = contents("text_functions")
    ours = [TEXT_FUNCTIONS[name](line) for line in recorded["lines"]]
    assert ours == recorded["out"][name]


@pytest.mark.parametrize("variant", FIXES)
def test_rouge_is_as_recorded(variant):
    recorded = contents("metrics")["rouge"]
    ours = original_rouge_scores(recorded["predictions"], recorded["refs"], FIXES[variant])
    for name, scores in ours.items():
        assert np.mean(scores) == pytest.approx(recorded["scores"][f"{name}/{variant}"], abs=1e-12)


def test_answers_of_windows_are_judged_as_recorded():
    recorded = contents("metrics")["squad"]
    ours = answer_scores(recorded["predictions"], recorded["idx"], recorded["answers"])
    assert np.mean(ours.exact_match) == pytest.approx(recorded["EM"])
    assert np.mean(ours.f1) == pytest.approx(recorded["F1"])
