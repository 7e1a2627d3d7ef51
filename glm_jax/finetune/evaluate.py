"""A checkpoint of any kind on a split of a task."""

from __future__ import annotations

from collections.abc import Mapping

import jax
from etils import epath

from glm_jax.checkpoints.checkpoints import Checkpoints
from glm_jax.errors import UsageError
from glm_jax.finetune.config import FinetuneRunConfig
from glm_jax.finetune.history import best_step_of
from glm_jax.finetune.prepare import prepare_finetuning
from glm_jax.finetune.recorded import recorded_task
from glm_jax.finetune.results import predictions_of
from glm_jax.finetune.weights import check_base


def untrained_settings(checkpoint: epath.Path, task: str) -> list[str]:
    """Settings that ask a checkpoint a task that it was not finetuned on."""
    return [
        f"task.name={task!r}",
        f"finetune.initial_weights={str(checkpoint)!r}",
        "finetune.run_folder='unused'",
        "optimizer.learning_rate=1e-5",
    ]


def evaluate_task(
    config: FinetuneRunConfig, checkpoint: epath.Path, split: str
) -> Mapping[str, float]:
    """The metrics of a checkpoint on a task.

    Args:
      config: of the run that finetuned the checkpoint on the task, whose best checkpoint is taken,
        or of `untrained_settings`.
      checkpoint: a run folder, or what else `glm_jax.load` opens.
      split: "dev" or "test", or another one that the task has.

    Raises:
      UsageError: something does not fit, or the split has no labels.
    """
    trained = recorded_task(checkpoint, "task") == config.task.name
    if not trained and (not config.task.cloze or config.prompt.total):
        raise UsageError(
            f"{checkpoint} was not finetuned on {config.task.name}, so it has neither a head nor "
            "prompts"
        )
    ready = prepare_finetuning(config, (split,))
    params = ready.params_of(config.finetune.seed)
    if trained:
        step = best_step_of(checkpoint)
        with Checkpoints(checkpoint / "checkpoints") as checkpoints:
            step = checkpoints.latest_step() if step is None else step
            check_base(checkpoints.read_record(step or 0), ready.base)
            abstract = {"params": ready.program.abstract_state.params}
            params = checkpoints.restore(step or 0, abstract)["params"]
    with jax.set_mesh(ready.mesh):
        found = predictions_of(ready, split, params)
    if not found.metrics:
        raise UsageError(
            f"the split {split} of task {config.task.name} has no labels, so it has no metrics"
        )
    return found.metrics
