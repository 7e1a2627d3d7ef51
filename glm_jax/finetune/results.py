"""What a run leaves for people: results, predictions and pictures of its best checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath
from jaxtyping import PyTree

from glm_jax.checkpoints.checkpoints import Checkpoints
from glm_jax.finetune.config import FinetuneRunConfig
from glm_jax.finetune.history import History
from glm_jax.finetune.pictures import draw_confusion, draw_curves
from glm_jax.finetune.predict import Predictions, predict
from glm_jax.finetune.prepare import PreparedFinetuning
from glm_jax.io.files import write_file
from glm_jax.tasks.predictions import prediction_lines, submission


def predictions_of(
    config: FinetuneRunConfig, ready: PreparedFinetuning, split: str, params: PyTree
) -> Predictions:
    """Predictions on a split."""
    examples, encoded = ready.splits[split].examples, ready.splits[split].encoded
    size = config.finetune.evaluation_batch_size
    with jax.transfer_guard("allow"):
        return predict(
            ready.task, examples, encoded, ready.program.scores, params, ready.mesh, size
        )


def write_results(
    config: FinetuneRunConfig,
    ready: PreparedFinetuning,
    folder: epath.Path,
    checkpoints: Checkpoints,
    history: History,
) -> Mapping[str, Any]:
    """Evaluates the best checkpoint and writes results and predictions."""
    checkpoints.wait()
    step = history.best_step()
    step = checkpoints.latest_step() if step is None else step
    abstract = {"params": ready.program.abstract_state.params}
    params = ready.params if step is None else checkpoints.restore(step, abstract)["params"]
    results: dict[str, Any] = {"task": ready.task.name, "step": step}
    for split in ("dev", "test"):
        if split not in ready.splits:
            continue
        found = predictions_of(config, ready, split, params)
        results |= found.metrics if split == "dev" else {"test": dict(found.metrics)}
        write_predictions(ready, folder, split, found)
    if jax.process_index() == 0:
        write_file(folder / "results.json", (json.dumps(results, indent=2) + "\n").encode())
        draw_curves(folder / "metrics.jsonl", folder / "curves.png")
    return results


def write_predictions(
    ready: PreparedFinetuning, folder: epath.Path, split: str, found: Predictions
) -> None:
    """Writes the predictions on a split, and which labels were taken for which others."""
    if jax.process_index() != 0:
        return
    examples = ready.splits[split].examples
    lines = prediction_lines(ready.task, found.labels, examples)
    name = "predictions.jsonl" if split == "dev" else f"predictions_{split}.jsonl"
    write_file(folder / name, ("\n".join(lines) + "\n").encode())
    submitted = submission(ready.task, found.labels, examples) if split == "test" else None
    if submitted is not None:
        write_file(folder / submitted[0], submitted[1].encode())
    if split == "dev" and found.metrics and not ready.task.variable_choices:
        labels = [ready.task.label_index(example) for example in examples]
        draw_confusion(ready.task.labels, labels, found.labels, folder / "confusion.png")
