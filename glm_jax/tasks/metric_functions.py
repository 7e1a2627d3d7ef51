"""Predictions of a task -> its metrics.

Definitions: SuperGLUE's and the original's (reference-finetune.md, section 6). Accuracies, gender
parity, and EM and F1 of ReCoRD and SQuAD, are percentages; other F1, `em` and Matthews' correlation
are fractions, as the original reports them.
"""

from __future__ import annotations

import math
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
    unknown = [name for name in task.metrics if name not in METRICS]
    if unknown:
        raise UsageError(
            f"task {task.name} has the metric {unknown[0]!r}; there are {', '.join(METRICS)}"
        )
    found = _metrics(task, predictions, examples)
    groups = {} if task.group is None else _grouped(task, predictions, examples)
    if len(groups) > 1:
        found |= {
            f"{name} of {group}": value
            for group, of_it in groups.items()
            for name, value in of_it.items()
        }
    return found


def _metrics(
    task: Task, predictions: Sequence[int], examples: Sequence[Example]
) -> dict[str, float]:
    found = {name: METRICS[name](task, predictions, examples) for name in task.metrics}
    return {name: value for name, value in found.items() if value is not None}


def _grouped(
    task: Task, predictions: Sequence[int], examples: Sequence[Example]
) -> dict[str, dict[str, float]]:
    """The metrics of each group of examples."""
    assert task.group is not None
    members: dict[str, list[int]] = defaultdict(list)
    for number, example in enumerate(examples):
        members[task.group(example)].append(number)
    return {
        group: _metrics(task, [predictions[i] for i in of_it], [examples[i] for i in of_it])
        for group, of_it in members.items()
    }


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


def matthews(predictions: Sequence[int], labels: Sequence[int]) -> float:
    """Matthews' correlation of two labels, -1 to 1; 0 where one side is the same for all."""
    pairs = Counter(zip((p == 1 for p in predictions), (x == 1 for x in labels), strict=True))
    both, neither = pairs[True, True], pairs[False, False]
    false_positives, false_negatives = pairs[True, False], pairs[False, True]
    product = math.prod(
        (
            *(both + false_positives, both + false_negatives),
            *(neither + false_positives, neither + false_negatives),
        )
    )
    if not product:
        return 0.0
    return (both * neither - false_positives * false_negatives) / math.sqrt(product)


def gender_parity(predictions: Sequence[int]) -> float:
    """Share, in percent, of pairs with one prediction: rows 2k and 2k + 1 differ in a pronoun."""
    pairs = list(zip(predictions[::2], predictions[1::2], strict=False))
    return accuracy([first for first, _ in pairs], [second for _, second in pairs])


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


def _questions_right_by_passage(
    task: Task, predictions: Sequence[int], examples: Sequence[Example]
) -> float | None:
    """SuperGLUE's: a question is one of its passage. None where it is the same as `em`."""
    pairs = [(example.meta["passage_idx"], example.meta["question_idx"]) for example in examples]
    if len(set(pairs)) == len({question for _, question in pairs}):
        return None
    return questions_right(predictions, _labels(task, examples), pairs)


def _gender_parity(
    task: Task, predictions: Sequence[int], examples: Sequence[Example]
) -> float | None:
    return gender_parity(predictions) if len(predictions) > 1 else None


# None where a metric has no value, or that of another one.
METRICS: Mapping[str, Callable[[Task, Sequence[int], Sequence[Example]], float | None]] = {
    "accuracy": _accuracy,
    "acc": _accuracy,
    "f1": lambda task, predictions, examples: f1_of(1, predictions, _labels(task, examples)),
    "matthews": lambda task, predictions, examples: matthews(predictions, _labels(task, examples)),
    "gender-parity": _gender_parity,
    "f1a": lambda task, predictions, examples: f1_of(1, predictions, _labels(task, examples)),
    "f1-macro": lambda task, predictions, examples: f1_macro(predictions, _labels(task, examples)),
    "em": _questions_right,
    "em-by-passage": _questions_right_by_passage,
    "EM": _entities(exact_match),
    "F1": _entities(word_f1),
}
