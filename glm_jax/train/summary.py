"""The line that a run starts with: what it will do, on what, and what that takes."""

from __future__ import annotations

import math

import jax
from jax.sharding import Mesh
from jaxtyping import PyTree

from glm_jax.model.flops import peak_flops_per_second, training_flops_per_token
from glm_jax.train.config import RunConfig
from glm_jax.train.metrics import duration
from glm_jax.train.optimizer import parameter_count
from glm_jax.train.preflight import PreparedRun
from glm_jax.train.step import TrainState

GIBIBYTE = 1 << 30
# Share of the chips' peak that the expected time of a step assumes.
EXPECTED_UTILISATION = 0.5


def describe(config: RunConfig, ready: PreparedRun, first_step: int) -> str:
    """One line: what is trained, on what, what that takes, and from which step.

    Args:
      config: of the run.
      ready: what it is made of.
      first_step: steps done before.
    """
    mesh, state = ready.mesh, ready.program.abstract_state
    num_tokens = ready.inputs.num_tokens("train")
    axes = ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items() if size > 1)
    processes = f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
    start = f"resuming from step {first_step}" if first_step else "from the start"
    return (
        f"GLM with {parameter_count(state.params):,} parameters on "
        f"{mesh.size} {mesh.devices.flat[0].device_kind} device(s){processes} "
        f"({axes or 'one copy'}); {memory(state, mesh)}; "
        f"{num_tokens:,} training tokens, {config.data.batch_size} x {config.data.sequence_length} "
        f"a step{expected_time(config, mesh)}, {config.train.num_steps} steps, {start}"
    )


def notes(config: RunConfig) -> list[str]:
    """Settings that are possible, but that only a trial of a few steps is likely to mean."""
    optimizer, num_steps = config.optimizer, config.train.num_steps
    warmup_steps = math.ceil(optimizer.warmup_fraction * optimizer.decay_steps)
    if warmup_steps <= num_steps:
        return []
    return [
        f"the learning rate rises for {warmup_steps} steps (optimizer.warmup_fraction of "
        f"optimizer.decay_steps), longer than the {num_steps} steps of the run: it does not reach "
        f"optimizer.learning_rate = {optimizer.learning_rate:g}"
    ]


def memory(state: TrainState, mesh: Mesh) -> str:
    """Memory of a device that state and gradients take, of what it has where that is known.

    The activations of a step come on top; they depend on how it is compiled.
    """
    state_bytes = device_bytes(state)
    with_gradients = state_bytes + device_bytes(state.params)
    needed = f"{_amount(state_bytes)} of state a device, {_amount(with_gradients)} with gradients"
    capacity = (mesh.local_devices[0].memory_stats() or {}).get("bytes_limit")
    return f"{needed}, of {_amount(capacity)}" if capacity else needed


def device_bytes(abstract: PyTree) -> int:
    """Bytes that one device holds of arrays with these shapes and shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(abstract)
    )


def expected_time(config: RunConfig, mesh: Mesh) -> str:
    """How long a step takes at half of the chips' peak, "" where that is not known."""
    peaks = [peak_flops_per_second(device) for device in mesh.devices.flat]
    known = [peak for peak in peaks if peak]
    if len(known) < len(peaks):
        return ""
    per_token = training_flops_per_token(
        config.model, config.data.sequence_length, config.train.target_fraction
    )
    tokens = config.data.batch_size * config.data.sequence_length
    seconds = per_token * tokens / (sum(known) * EXPECTED_UTILISATION)
    text = f"{seconds:.2g} s" if seconds < 10 else duration(seconds)
    return f" (about {text} at {EXPECTED_UTILISATION:.0%} of the chips' peak)"


def _amount(num_bytes: int) -> str:
    if num_bytes < GIBIBYTE / 10:
        return f"{num_bytes / (1 << 20):.1f} MiB"
    return f"{num_bytes / GIBIBYTE:.2f} GiB"
