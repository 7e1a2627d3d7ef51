"""Predictions of a task -> its metrics.

Definitions: SuperGLUE's and the original's (reference-finetune.md, section 6). Accuracies, and EM
and F1 of ReCoRD and SQuAD, are percentages; other F1 and `em` are fractions, as the original
reports them.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

from glm_jax.errors import UsageError
from glm_jax.tasks.example import Example
from glm_jax.tasks.registry import find_task
from glm_jax.tasks.task import Task

# Letters that have no decomposition into an ASCII letter and accents.
_LETTERS = str.maketrans(
    {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th"}
)
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def metrics(
    task: str | Task, predictions: Sequence[int], examples: Sequence[Example]
) -> dict[str, float]:
    """The metrics that the task reports, by name; the first one chooses the best checkpoint.

    Args:
      task: or its name.
      predictions: index of the chosen label or answer of each example.
      examples: with labels.

    Raises:
      UsageError: there are no examples, examples have no labels, or not one prediction each.
    """
    task = find_task(task)
    if not examples:
        raise UsageError(f"task {task.name} has no examples to compute metrics of")
    if len(predictions) != len(examples):
        raise UsageError(f"{len(predictions)} predictions for {len(examples)} examples")
    if any(example.label is None for example in examples):
        raise UsageError(f"examples of task {task.name} have no labels, so they have no metrics")
    return {name: METRICS[name](task, predictions, examples) for name in task.metrics}


def accuracy(predictions: Sequence[int], labels: Sequence[int]) -> float:
    """Share of right predictions, in percent."""
    right = sum(int(p == label) for p, label in zip(predictions, labels, strict=True))
    return 100 * right / len(labels)


def f1_of(label: int, predictions: Sequence[int], labels: Sequence[int]) -> float:
    """F1 of one label, 0 to 1; 0 where it is neither predicted nor there."""
    pairs = Counter(zip(predictions, labels, strict=True))
    both = pairs[label, label]
    predicted = sum(1 for prediction in predictions if prediction == label)
    present = sum(1 for other in labels if other == label)
    return 2 * both / (predicted + present) if predicted + present else 0.0


def f1_macro(predictions: Sequence[int], labels: Sequence[int]) -> float:
    """Mean F1, 0 to 1, of the labels that are predicted or there."""
    present = sorted({*predictions, *labels})
    return sum(f1_of(label, predictions, labels) for label in present) / len(present)


def questions_right(
    predictions: Sequence[int], labels: Sequence[int], questions: Sequence[object]
) -> float:
    """Share, 0 to 1, of questions all of whose answers are judged rightly."""
    right: dict[object, bool] = defaultdict(lambda: True)
    for prediction, label, question in zip(predictions, labels, questions, strict=True):
        right[question] &= prediction == label
    return sum(right.values()) / len(right)


def normalize_answer(text: str) -> str:
    """Lower case, ASCII, no punctuation, no articles, single spaces."""
    decomposed = unicodedata.normalize("NFKD", text.lower().translate(_LETTERS))
    ascii_only = decomposed.encode("ascii", "ignore").decode()
    return " ".join(_ARTICLES.sub(" ", ascii_only.translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answer: str) -> float:
    """1 if both are the same answer once normalized, else 0."""
    return float(normalize_answer(prediction) == normalize_answer(answer))


def word_f1(prediction: str, answer: str) -> float:
    """F1, 0 to 1, over the words of two normalized answers."""
    predicted, expected = normalize_answer(prediction).split(), normalize_answer(answer).split()
    both = sum((Counter(predicted) & Counter(expected)).values())
    return 2 * both / (len(predicted) + len(expected)) if both else 0.0


def best_of_answers(
    score: Callable[[str, str], float], predictions: Sequence[str], answers: Sequence[Sequence[str]]
) -> float:
    """Mean over questions, in percent, of the best score against any right answer."""
    best = [
        max((score(prediction, answer) for answer in right), default=0.0)
        for prediction, right in zip(predictions, answers, strict=True)
    ]
    return 100 * sum(best) / len(best)


def _labels(task: Task, examples: Sequence[Example]) -> list[int]:
    return [task.label_index(example) for example in examples]


def _entities(score: Callable[[str, str], float]):
    def metric(task: Task, predictions: Sequence[int], examples: Sequence[Example]) -> float:
        chosen = [
            example.meta["candidates"][prediction]
            for prediction, example in zip(predictions, examples, strict=True)
        ]
        return best_of_answers(score, chosen, [example.meta["answers"] for example in examples])

    return metric


def _accuracy(task: Task, predictions: Sequence[int], examples: Sequence[Example]) -> float:
    return accuracy(predictions, _labels(task, examples))


def _questions_right(task: Task, predictions: Sequence[int], examples: Sequence[Example]) -> float:
    questions = [example.meta["question_idx"] for example in examples]
    return questions_right(predictions, _labels(task, examples), questions)


METRICS: Mapping[str, Callable[[Task, Sequence[int], Sequence[Example]], float]] = {
    "accuracy": _accuracy,
    "acc": _accuracy,
    "f1a": lambda task, predictions, examples: f1_of(1, predictions, _labels(task, examples)),
    "f1-macro": lambda task, predictions, examples: f1_macro(predictions, _labels(task, examples)),
    "em": _questions_right,
    "EM": _entities(exact_match),
    "F1": _entities(word_f1),
}
