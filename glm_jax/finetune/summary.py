"""The lines that a finetuning run starts with: what is trained, on what, and for how long."""

from __future__ import annotations

import jax

from glm_jax.finetune.config import FinetuneBaseConfig
from glm_jax.finetune.prepare import PreparedFinetuning
from glm_jax.finetune.schedule import batches_of
from glm_jax.train.optimizer import parameter_count
from glm_jax.train.summary import memory


def describe_network(config: FinetuneBaseConfig, ready: PreparedFinetuning) -> str:
    """One line: the network, where its weights come from, and the devices."""
    mesh, state = ready.mesh, ready.program.abstract_state
    trained, frozen = parameter_count(state.params), parameter_count(ready.frozen)
    count = (
        f"{trained:,} parameters"
        if not frozen
        else (f"{trained + frozen:,} parameters, of which {trained:,} are trained,")
    )
    axes = ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items() if size > 1)
    processes = f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
    settings = config.finetune
    weights = "random weights" if settings.random_weights else settings.initial_weights
    return (
        f"GLM with {count} from {weights} on {mesh.size} "
        f"{mesh.devices.flat[0].device_kind} device(s){processes} ({axes or 'one copy'}); "
        f"{memory(state, mesh)}"
    )


def describe_training(
    config: FinetuneBaseConfig, ready: PreparedFinetuning, first_step: int
) -> str:
    """One line: the task, its examples, the steps of the run, and the one that it starts from.

    Args:
      config: of the run.
      ready: what it is made of.
      first_step: steps done before.
    """
    counts = ", ".join(f"{len(split.examples):,} {name}" for name, split in ready.splits.items())
    settings = config.finetune
    padding = batches_of(config, ready).padding_share()
    epochs = "1 epoch" if settings.epochs == 1 else f"{settings.epochs} epochs"
    start = f"resuming from step {first_step}" if first_step else "from the start"
    return (
        f"task {ready.name} {ready.way}: {counts} examples; {epochs} of {ready.steps_per_epoch} "
        f"steps of {settings.batch_size}, {padding:.0%} padding, {start}"
    )
