"""Metrics that no recorded numbers cover, against values computed by hand."""

from __future__ import annotations

import math

import pytest

from glm_jax.errors import UsageError
from glm_jax.tasks import Example, metrics
from glm_jax.tasks.metric_functions import gender_parity, matthews


def labelled(labels: list) -> list[Example]:
    return [Example(f"dev-{number}", "", label=label) for number, label in enumerate(labels)]


def test_cb_has_the_mean_f1_of_its_labels():
    # F1: entailment 2/3 (2 predicted, 1 there), contradiction 1, neutral 0 (1 there).
    found = metrics("cb", [0, 0, 1], labelled(["entailment", "neutral", "contradiction"]))
    assert found == pytest.approx({"accuracy": 200 / 3, "f1-macro": (2 / 3 + 1 + 0) / 3})


def test_diagnostics_have_matthews_correlation():
    # Label 1 is the positive one: 2 true, 1 false positive, 1 true and 1 false negative:
    # (2 x 1 - 1 x 1) / sqrt(3 x 3 x 2 x 2).
    labels = ["not_entailment", "not_entailment", "entailment", "entailment", "not_entailment"]
    found = metrics("ax-b", [1, 1, 1, 0, 0], labelled(labels))
    assert found == pytest.approx({"accuracy": 60.0, "matthews": 1 / 6})
    assert matthews([1, 1], [0, 1]) == 0.0
    assert matthews([0, 1], [0, 1]) == 1.0 and matthews([1, 0], [0, 1]) == -1.0
    found = metrics("cola", [1, 0, 0], labelled(["1", "0", "1"]))
    assert found["matthews"] == pytest.approx(1 / math.sqrt(1 * 2 * 1 * 2))


def test_winogender_counts_pairs_with_one_prediction():
    assert gender_parity([0, 0, 1, 0, 1, 1]) == pytest.approx(200 / 3)
    found = metrics("ax-g", [0, 1, 1, 1], labelled(["entailment"] * 4))
    assert found == {"accuracy": 25.0, "gender-parity": 50.0}


def test_pairs_have_f1():
    # Two right of class 1, one missed, one wrong: F1 = 4 / (3 + 3).
    found = metrics("mrpc", [1, 1, 0, 1], labelled(["1", "1", "1", "0"]))
    assert found == pytest.approx({"accuracy": 50.0, "f1": 2 / 3})


def test_multirc_groups_answers_as_the_original_and_as_superglue():
    def example(passage, question, label):
        meta = {"passage_idx": passage, "question_idx": question}
        return Example("", "", "", label, meta=meta)

    # Question 0 of passage 0 is right, question 0 of passage 1 wrong, question 1 of it right.
    rows = [example(0, 0, 1), example(0, 0, 0), example(1, 0, 1), example(1, 1, 0)]
    found = metrics("multirc", [1, 0, 0, 0], rows)
    assert found == pytest.approx({"f1a": 2 / 3, "em": 1 / 2, "acc": 75.0, "em-by-passage": 2 / 3})
    # With numbers that run through all passages, as SuperGLUE's files have them, both are one.
    rows = [example(0, 0, 1), example(0, 0, 0), example(1, 1, 1), example(1, 2, 0)]
    assert metrics("multirc", [1, 0, 0, 0], rows) == pytest.approx(
        {"f1a": 2 / 3, "em": 2 / 3, "acc": 75.0}
    )


def test_record_takes_the_best_answer():
    def example(candidates, answers):
        return Example("", "", "", "1", meta={"candidates": candidates, "answers": answers})

    rows = [
        example(["the White House", "Congress"], ["White House", "House"]),
        example(["Ann Lee", "Bob"], ["Ann"]),
        example(["Ann"], []),
    ]
    # EM 1, 0, 0; F1 1, 2 x 1 / (2 + 1), 0.
    assert metrics("record", [0, 0, 0], rows) == pytest.approx(
        {"EM": 100 / 3, "F1": 100 * (1 + 2 / 3) / 3}
    )


def test_files_of_choices_are_averaged_by_their_examples():
    rows = [Example(str(n), "", None, 0, meta={"file": "a"}) for n in range(3)]
    rows += [Example("0", "", None, 1, meta={"file": "b"})]
    found = metrics("multichoice", [0, 1, 1, 1], rows)
    third, mean = 100 / 3, (3 * 100 / 3 + 1 * 100) / 4
    expected = {"accuracy": mean, "accuracy of a": third, "accuracy of b": 100.0}
    assert found == pytest.approx(expected)
    assert metrics("multichoice", [0, 1, 1], rows[:3]) == pytest.approx({"accuracy": third})


@pytest.mark.parametrize(
    ("predictions", "rows", "message"),
    [
        ([], [], "task rte has no examples"),
        ([0], labelled(["entailment"] * 2), "1 predictions for 2 examples"),
        ([0], labelled([None]), "have no labels, so they have no metrics"),
    ],
)
def test_what_has_no_metrics_is_one_sentence(predictions, rows, message):
    with pytest.raises(UsageError, match=message):
        metrics("rte", predictions, rows)
