"""The train step of a run, compiled for TPUs and reported on."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
from collections.abc import Mapping

import jax
from jax.sharding import Mesh

from glm_jax.compile.costs import Loops
from glm_jax.compile.predict import predict
from glm_jax.compile.program import compile_program
from glm_jax.compile.report import StepReport, collective_totals
from glm_jax.compile.topology import Topology
from glm_jax.model.config import GLMConfig
from glm_jax.model.flops import training_flops_per_token
from glm_jax.parallel.mesh import make_mesh
from glm_jax.train.compile_ahead import lower_step
from glm_jax.train.config import RunConfig
from glm_jax.train.optimizer import parameter_count
from glm_jax.train.program import program_of


def compile_step(
    config: RunConfig,
    topology: Topology,
    name: str,
    compiler_options: Mapping[str, str | bool | int],
) -> StepReport:
    """Compiles the step that `glm-jax pretrain` runs for this configuration, and analyses it.

    Args:
      config: of the run; its data are not read.
      topology: what to compile for.
      name: how the report calls the configuration.
      compiler_options: flags of the compiler, such as those of `glm_jax.compile.tpu_flags` for the
        generation.

    Raises:
      UsageError: the mesh or the batch doesn't go with the number of devices.
      DoesNotFitError: a chip has too little memory.
    """
    mesh = make_mesh(config.mesh, topology.devices)
    program = program_of(config, mesh)
    lowered = lower_step(program, config.data.batch_size, config.data.sequence_length, mesh)
    work = Work(
        config.model,
        parameter_count(program.abstract_state.params),
        config.data.batch_size,
        config.data.sequence_length,
        config.train.target_fraction,
    )
    return compile_and_report(lowered, work, mesh, topology, name, compiler_options)


@dataclasses.dataclass(frozen=True)
class Work:
    """What a step computes, over all chips.

    Attributes:
      model: the network.
      parameters: of the network and what is trained with it.
      rows, length: the sequences of a step.
      logit_fraction: share of their positions whose logits are computed.
      frozen_parameters: of layers that are not trained.
    """

    model: GLMConfig
    parameters: int
    rows: int
    length: int
    logit_fraction: float
    frozen_parameters: int = 0

    @property
    def flops(self) -> float:
        """Operations of the model, nothing repeated."""
        per_token = training_flops_per_token(
            self.model, self.length, self.logit_fraction, self.frozen_parameters
        )
        return self.rows * self.length * per_token


def compile_and_report(
    lowered: jax.stages.Lowered,
    work: Work,
    mesh: Mesh,
    topology: Topology,
    name: str,
    compiler_options: Mapping[str, str | bool | int],
    loops: Loops | None = None,
) -> StepReport:
    """Compiles a lowered step and analyses it.

    Arguments and errors are those of `compile_step`, and `loops` of `count_costs`.
    """
    compiled = compile_program(lowered, slices_of(mesh), compiler_options, loops)
    costs, model_flops = compiled.costs, work.flops / mesh.size
    return StepReport(
        configuration=name,
        topology=topology.name,
        num_slices=topology.num_slices,
        chips=mesh.size,
        mesh=dict(mesh.shape),
        layers=work.model.num_layers,
        parameters=work.parameters,
        remat=work.model.remat,
        batch_size=work.rows,
        sequence_length=work.length,
        memory=compiled.memory,
        hbm_bytes=topology.chip.hbm_bytes,
        product_flops=costs.flops,
        kernel_flops=math.fsum(kernel.calls * kernel.flops for kernel in costs.kernels),
        model_flops=model_flops,
        collectives=collective_totals(costs),
        cycles=costs.cycles,
        unestimated=costs.unestimated,
        kernels=costs.kernels,
        prediction=predict(costs, topology.chip, model_flops, work.model.head_size),
        temporaries=compiled.temporaries,
        fusions=compiled.fusions,
        unknown_loops=costs.unknown_loops,
        compile_seconds=compiled.compile_seconds,
        compile_cpu_seconds=compiled.compile_cpu_seconds,
        scan_layers=work.model.scan_layers,
        compiler={name: importlib.metadata.version(name) for name in ("jax", "libtpu")},
    )


def slices_of(mesh: Mesh) -> list[int]:
    """The slice of every device, in the mesh's order; 0 where there is only one."""
    return [getattr(device, "slice_index", None) or 0 for device in mesh.devices.flat]
