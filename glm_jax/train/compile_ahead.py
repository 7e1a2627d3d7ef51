"""Programs compiled before they are needed, from the shapes that the configuration gives."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import jax
from jax.sharding import Mesh

from glm_jax.parallel.batches import abstract_batch
from glm_jax.train.program import Program

Compiled = TypeVar("Compiled")


def lower_step(
    program: Program, batch_size: int, sequence_length: int, mesh: Mesh
) -> jax.stages.Lowered:
    """The train step for batches of this shape, ready for the compiler."""
    batch = abstract_batch(batch_size, sequence_length, mesh)
    with jax.set_mesh(mesh):
        return program.train_step.lower(program.abstract_state, batch, program.settings)


def compile_in_background(compile: Callable[[], Compiled]) -> Future[Compiled]:
    """Starts to compile something in a thread, which leaves Python to the caller meanwhile.

    Python waits for the compiler before it exits, whatever happens until then: it can't be stopped.
    """
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="compile")
    compiled = executor.submit(compile)
    executor.shutdown(wait=False)
    return compiled
