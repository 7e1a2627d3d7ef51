"""Outputs and references -> metrics with confidence intervals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from glm_jax.errors import UsageError
from glm_jax.seq2seq.catalog.questions import NO_ANSWER
from glm_jax.tasks.metric_functions import exact_match, word_f1

CONFIDENCE = 0.95
NUM_RESAMPLES = 1000
_SEED = 0


class Estimate(NamedTuple):
    """A metric with its bootstrap confidence interval.

    Attributes:
      value: over all examples.
      low, high: ends of the 95% interval.
    """

    value: float
    low: float
    high: float


def mean_estimate(scores: Float[np.ndarray, "N"] | Sequence[float]) -> Estimate:
    """The mean of the examples' scores.

    The interval is between percentiles of the means of resampled examples (Efron, 1979).
    """
    values = np.asarray(scores, np.float64)
    random = np.random.default_rng(_SEED)
    means = [
        values[random.integers(0, len(values), len(values))].mean() for _ in range(NUM_RESAMPLES)
    ]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(float(values.mean()), float(low), float(high))


def bleu_estimate(predictions: Sequence[str], references: Sequence[str]) -> Estimate:
    """Corpus BLEU, 0 to 100, by `sacrebleu` with its default tokenizer (Post, 2018).

    Raises:
      UsageError: sacrebleu is not installed.
    """
    bleu = import_bleu()()
    found = bleu.corpus_score(list(predictions), [list(references)], n_bootstrap=NUM_RESAMPLES)
    signature = bleu.get_signature().format()
    fields = json.loads(found.format(width=12, signature=signature, is_json=True))
    # Left out where the mean over all resamples is 0.
    middle, half = fields.get("confidence_mean", 0.0), fields.get("confidence_var", 0.0)
    return Estimate(found.score, middle - half, middle + half)


def import_bleu() -> Any:
    """The class of `sacrebleu`.

    Raises:
      UsageError: it is not installed.
    """
    try:
        from sacrebleu.metrics import BLEU
    except ImportError as error:
        raise UsageError(
            "BLEU needs the package sacrebleu: pip install 'glm_jax[evaluation]'"
        ) from error
    return BLEU


class AnswerScores(NamedTuple):
    """EM and F1 of each question, in percent."""

    exact_match: list[float]
    f1: list[float]


def answer_scores(
    predictions: Sequence[str], questions: Sequence[object], answers: Sequence[Sequence[str]]
) -> AnswerScores:
    """Scores of questions whose passages were read in windows (SQuAD 1.1 and 2.0).

    The prediction of a question is the first one that is not "no answer" among its windows'.

    Args:
      predictions: of each window, in the order of windows.
      questions: what identifies the window's question.
      answers: the right answers of the window's question.
    """
    chosen: dict[object, str] = {}
    right: dict[object, Sequence[str]] = {}
    for prediction, question, expected in zip(predictions, questions, answers, strict=True):
        right.setdefault(question, expected)
        if question not in chosen or is_no_answer(chosen[question]):
            chosen[question] = prediction
    matches, overlaps = [], []
    for question, expected in right.items():
        prediction = chosen[question]
        if list(expected) == [NO_ANSWER]:
            match = overlap = float(is_no_answer(prediction))
        elif is_no_answer(prediction):
            match = overlap = 0.0
        else:
            match = max(exact_match(prediction, answer) for answer in expected)
            overlap = max(word_f1(prediction, answer) for answer in expected)
        matches.append(100 * match)
        overlaps.append(100 * overlap)
    return AnswerScores(matches, overlaps)


def is_no_answer(text: str) -> bool:
    """Whether a text says that there is no answer, whatever its spaces and case."""
    return text.lower().replace(" ", "") == NO_ANSWER.lower()
