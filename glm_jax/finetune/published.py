"""Scores on SuperGLUE's dev sets that the authors of GLM published, to compare runs with.

All are of finetuning on one task alone. Names and units of the metrics are those of the tasks here:
accuracies, and EM and F1 of ReCoRD, in percent; other F1 and MultiRC's `em` as fractions.

Sources: for all models but GLM-10B, Du et al. (2022), GLM: General Language Model Pretraining with
Autoregressive Blank Infilling, table 1 (arxiv.org/abs/2103.10360); for GLM-10B the README of
github.com/THUDM/GLM.
"""

from __future__ import annotations

from collections.abc import Mapping

PAPER = "arxiv.org/abs/2103.10360, table 1"
REPOSITORY = "github.com/THUDM/GLM"

# ReCoRD F1 and EM, COPA, WSC, RTE, BoolQ, WiC, CB F1 and accuracy, MultiRC F1a and EM: in percent.
_ROWS: Mapping[str, tuple[float, ...]] = {
    "GLM-Base": (73.5, 72.8, 71.0, 72.1, 71.2, 77.0, 64.7, 89.5, 85.7, 72.1, 26.1),
    "GLM-Large": (81.7, 81.1, 76.0, 81.7, 74.0, 82.1, 68.5, 96.1, 94.6, 77.1, 36.3),
    "GLM-Doc": (80.2, 79.6, 77.0, 78.8, 76.2, 79.8, 63.6, 97.3, 96.4, 74.6, 32.1),
    "GLM-410M": (81.5, 80.9, 80.0, 81.7, 79.4, 81.9, 69.0, 93.2, 96.4, 76.2, 35.5),
    "GLM-515M": (82.3, 81.7, 85.0, 81.7, 79.1, 81.3, 69.4, 95.0, 96.4, 77.2, 35.0),
    "GLM-RoBERTa": (89.6, 89.0, 82.0, 83.7, 87.7, 84.7, 71.2, 98.7, 98.2, 82.4, 50.1),
    "GLM-10B": (94.4, 94.0, 98.0, 95.2, 93.1, 88.7, 75.7, 98.7, 98.2, 88.1, 63.3),
}


def _by_task(row: tuple[float, ...]) -> Mapping[str, Mapping[str, float]]:
    record_f1, record_em, copa, wsc, rte, boolq, wic, cb_f1, cb_accuracy, f1a, em = row
    accuracies = {"copa": copa, "wsc": wsc, "rte": rte, "boolq": boolq, "wic": wic}
    return {
        "record": {"EM": record_em, "F1": record_f1},
        "cb": {"accuracy": cb_accuracy, "f1-macro": cb_f1 / 100},
        "multirc": {"f1a": f1a / 100, "em": em / 100},
        **{task: {"accuracy": value} for task, value in accuracies.items()},
    }


# By model and task.
PUBLISHED: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    model: _by_task(row) for model, row in _ROWS.items()
}


def published_scores(model: str, task: str) -> Mapping[str, object] | None:
    """The published scores of a model on the dev split of a task.

    Args:
      model: of `PUBLISHED`; "" for none.
      task: its name.

    Returns:
      The metrics by name, with `model` and `source`; None where none is known.
    """
    scores = PUBLISHED.get(model, {}).get(task)
    if scores is None:
        return None
    source = REPOSITORY if model == "GLM-10B" else PAPER
    return {**scores, "model": model, "source": source}
