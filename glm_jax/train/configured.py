"""The program that a run's configuration describes."""

from __future__ import annotations

from jax.sharding import Mesh

from glm_jax.configure import RunConfig
from glm_jax.parallel.mesh import check_batch_size
from glm_jax.train.program import Program, check_loss_chunks, check_parts, make_program


def program_of(config: RunConfig, mesh: Mesh) -> Program:
    """The functions that training runs, and that are compiled ahead of time.

    Raises:
      UsageError: batch, network, sequence or attention do not go with the mesh.
    """
    micro_batch = config.data.batch_size // config.train.accumulation_steps
    check_batch_size(micro_batch, mesh)
    check_parts(config.model, mesh, config.data.sequence_length)
    check_loss_chunks(
        mesh,
        micro_batch * config.data.sequence_length,
        config.train.target_fraction,
        config.train.loss_chunks,
    )
    return make_program(
        config.model,
        config.optimizer,
        mesh,
        seed=config.train.seed,
        layout=config.layout,
        target_fraction=config.train.target_fraction,
        loss_chunks=config.train.loss_chunks,
        accumulation_steps=config.train.accumulation_steps,
        accumulation=config.train.accumulation,
    )
