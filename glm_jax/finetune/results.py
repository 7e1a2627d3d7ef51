"""What a run leaves for people: results, predictions and pictures of its best checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import jax
from etils import epath
from jaxtyping import PyTree

from glm_jax.checkpoints.checkpoints import Checkpoints
from glm_jax.cluster.agree import any_process
from glm_jax.finetune.config import FinetuneBaseConfig
from glm_jax.finetune.history import History
from glm_jax.finetune.pictures import draw_confusion, draw_curves
from glm_jax.finetune.predict import Predictions
from glm_jax.finetune.prepare import PreparedFinetuning
from glm_jax.finetune.published import published_scores
from glm_jax.finetune.trainable import join
from glm_jax.finetune.weights import initial_state_from
from glm_jax.io.files import write_file, write_files

RESULTS_FILE = "results.json"
# What results have in addition to the metrics on the dev split.
_NOT_METRICS = (*("task", "step", "steps", "test", "confusion", "published", "deviation", "seeds"),)


def metrics_of(results: Mapping[str, Any]) -> dict[str, float]:
    """The metrics on the dev split."""
    return {name: value for name, value in results.items() if name not in _NOT_METRICS}


def result_lines(results: Mapping[str, Any]) -> Iterator[str]:
    """Results for people: a line for each split, and one for the published score."""
    deviation = results.get("deviation", {})
    for split, found, spread in (
        ("dev", metrics_of(results), deviation),
        ("test", results.get("test"), deviation.get("test", {})),
    ):
        if found:
            shown = (
                f"{name} {value:.4g}" + (f" ± {spread[name]:.2g}" if name in spread else "")
                for name, value in found.items()
            )
            seeds = f", {len(results['seeds'])} seeds" if spread else ""
            yield f"{split:<11} {', '.join(shown)}{seeds}"
    if published := results.get("published"):
        scores = (f"{n} {v:.4g}" for n, v in published.items() if n not in ("model", "source"))
        yield f"published   {', '.join(scores)} ({published['model']}, {published['source']})"


def read_results(
    folder: epath.Path, ready: PreparedFinetuning, steps: int
) -> dict[str, Any] | None:
    """The results that a run has already written after its last step; all processes take part.

    Args:
      folder: of the run.
      ready: the run.
      steps: done.

    Returns:
      None where there are none, or they are of fewer steps or splits.
    """
    file, results = folder / RESULTS_FILE, None
    if file.is_file():
        with suppress(ValueError):
            results = json.loads(file.read_text())
    if not isinstance(results, dict) or results.get("steps") != steps:
        results = None
    known = results is not None and ("test" in results) == ("test" in ready.splits)
    # A process that continues alone would wait for the others.
    return None if any_process(not known) else results


def predictions_of(ready: PreparedFinetuning, split: str, params: PyTree) -> Predictions:
    """Predictions on a split, by the trained parameters; all processes take part."""
    with jax.transfer_guard("allow"):
        return ready.predict(split, join(params, ready.frozen))


def write_results(
    config: FinetuneBaseConfig,
    ready: PreparedFinetuning,
    folder: epath.Path,
    checkpoints: Checkpoints,
    history: History,
) -> Mapping[str, Any]:
    """Evaluates the best checkpoint and writes results and predictions; the results last."""
    checkpoints.wait()
    steps, step = checkpoints.latest_step() or 0, history.best_step()
    step = (steps or None) if step is None else step
    abstract = {"params": ready.program.abstract_state.params}
    if step is None:
        start = ready.params_of(config.finetune.seed)
        params = initial_state_from(ready.program, start, config.finetune.seed).params
    else:
        params = checkpoints.restore(step, abstract)["params"]
    results: dict[str, Any] = {"task": ready.name, "step": step, "steps": steps}
    for split in ("dev", "test"):
        if split not in ready.splits:
            continue
        found = predictions_of(ready, split, params)
        results |= found.metrics if split == "dev" else {"test": dict(found.metrics)}
        if split == "dev" and found.confusion:
            results["confusion"] = found.confusion
        if jax.process_index() == 0:
            write_files(folder, found.files)
    if published := published_scores(config.finetune.published, ready.name):
        results["published"] = dict(published)
    if jax.process_index() == 0:
        write_pictures(folder, [folder], results)
        write_file(folder / RESULTS_FILE, (json.dumps(results, indent=2) + "\n").encode())
    return results


def write_pictures(
    folder: epath.Path, runs: Sequence[epath.Path], results: Mapping[str, Any]
) -> None:
    """Draws the learning curves of runs, and which labels their results take for which others."""
    draw_curves([run / "metrics.jsonl" for run in runs], folder / "curves.png")
    if confusion := results.get("confusion"):
        draw_confusion(confusion["labels"], confusion["counts"], folder / "confusion.png")
