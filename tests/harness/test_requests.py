"""Requests of lm-evaluation-harness as rows, and the harness's own run on local tasks."""

# The harness is not installed where types are checked.
# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

import jax
import pytest

import glm_jax
from glm_jax.errors import UsageError
from glm_jax.harness.requests import make_template, stop_at
from tests.harness.local_tasks import ROWS, write_tasks
from tests.serve.tiny_checkpoint import byte_tokenizer, write_checkpoint

TOKENIZER = byte_tokenizer()
SPECIAL = TOKENIZER.special


def text_of(ids) -> str:
    return TOKENIZER.decode([id for id in ids if id < 256])


def test_a_continuation_is_scored_after_its_context():
    row = make_template("", TOKENIZER, 32).continuation_row("the [MASK] left", " at dawn")
    prefix = int(row["prefix_length"])
    assert text_of(row["tokens"][:prefix]) == "the [MASK] left"
    assert row["tokens"][prefix - 1] == SPECIAL["gMASK"]
    assert text_of(row["targets"][row["loss_mask"] == 1]) == " at dawn"


def test_a_template_puts_the_blank_anywhere_and_a_long_context_loses_its_start():
    template = make_template("Q: {context} A: [MASK].", TOKENIZER, 24)
    row = template.continuation_row("abcdefghijkl", "xyz")
    part_a = row["tokens"][: int(row["prefix_length"])].tolist()
    assert text_of(part_a) == "Q: bcdefghijkl A:."
    assert part_a[-3:-1] == [SPECIAL["MASK"], ord(".")] and part_a[-1] == SPECIAL["eos"]
    assert len(part_a) + 3 == 24
    with pytest.raises(UsageError, match="no position"):
        template.continuation_row("abc", "x" * 20)
    with pytest.raises(UsageError, match="no tokens"):
        template.continuation_row("abc", "")


@pytest.mark.parametrize(
    "template", ["[MASK]", "{context}", "{context}[MASK][MASK]", "{context}{context}[MASK]"]
)
def test_other_templates_are_refused(template):
    with pytest.raises(UsageError, match="template"):
        make_template(template, TOKENIZER, 32)


def test_all_tokens_of_a_text_are_scored_once():
    text = "a text that is longer than a window has room for"
    rows = make_template("", TOKENIZER, 20).text_rows(text, 5)
    scored = [id for row in rows for id in row["targets"][row["loss_mask"] == 1]]
    assert text_of(scored) == text
    assert all(len(row["tokens"]) == 20 for row in rows)


def test_generations_end_at_the_first_stop_string():
    assert stop_at("one\n\ntwo.", [".", "\n\n", ""]) == "one"
    assert stop_at("one", ["."]) == "one"


@pytest.mark.slow
def test_the_harness_runs_local_tasks(tmp_path):
    """Imports of lm_eval alone take seconds."""
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.tasks import TaskManager

    from glm_jax.harness.model import GLMHarnessModel

    checkpoint = write_checkpoint(tmp_path / "checkpoint")
    tasks = write_tasks(tmp_path, ROWS)
    make: Any = GLMHarnessModel
    model = make(str(checkpoint), batch_size=2)
    found = lm_eval.simple_evaluate(
        model=model,
        tasks=tasks,
        task_manager=TaskManager(include_path=str(tmp_path)),
        log_samples=True,
    )
    assert set(found["results"]) == set(tasks)
    samples = sorted(found["samples"]["local_choice"], key=lambda sample: sample["doc_id"])
    network: Any
    network, params = glm_jax.load(checkpoint)
    texts = [f"{row['question']}[gMASK]" for row in ROWS]
    # The harness puts a space before a choice.
    answers = [[f" {choice}" for choice in row["choices"]] for row in ROWS]
    ours = glm_jax.score(network, params, TOKENIZER, texts, answers)
    for sample, scores in zip(samples, ours, strict=True):
        for response, score in zip(sample["resps"], scores, strict=True):
            expected = sum(score.blanks[0].log_probs)
            assert float(response[0][0]) == pytest.approx(expected, abs=1e-5)
    jax.clear_caches()
