"""The train step compiled before there is a batch, from the shapes that the configuration gives."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import jax
from jax.sharding import Mesh

from glm_jax.parallel.batches import abstract_batch
from glm_jax.train.program import Program


def lower_step(
    program: Program, batch_size: int, sequence_length: int, mesh: Mesh
) -> jax.stages.Lowered:
    """The train step for batches of this shape, ready for the compiler."""
    batch = abstract_batch(batch_size, sequence_length, mesh)
    with jax.set_mesh(mesh):
        return program.train_step.lower(program.abstract_state, batch, program.settings)


def compile_in_background(
    program: Program, batch_size: int, sequence_length: int, mesh: Mesh
) -> Future[jax.stages.Compiled]:
    """Starts to compile the train step in a thread, which leaves Python to the caller meanwhile.

    Python waits for the compiler before it exits, whatever happens until then: it can't be stopped.
    """
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="compile")
    lowered = partial(lower_step, program, batch_size, sequence_length, mesh)
    compiled = executor.submit(lambda: lowered().compile())
    executor.shutdown(wait=False)
    return compiled
