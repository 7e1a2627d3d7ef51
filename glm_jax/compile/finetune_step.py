"""The step of a finetuning run, compiled for TPUs and reported on."""

from __future__ import annotations

from collections.abc import Mapping

import jax

from glm_jax.compile.report import StepReport
from glm_jax.compile.step import Work, compile_and_report
from glm_jax.compile.topology import Topology
from glm_jax.errors import UsageError
from glm_jax.finetune.config import FinetuneRunConfig
from glm_jax.finetune.lora import linear_kind
from glm_jax.finetune.opening import trained_parameters, with_settings
from glm_jax.finetune.placeholder import placeholder_batch
from glm_jax.finetune.prepare import make_program, scorer_of
from glm_jax.finetune.step_size import step_size
from glm_jax.finetune.trainable import layer_size
from glm_jax.model import GLM, GLMConfig
from glm_jax.parallel.batches import batch_sharding
from glm_jax.parallel.mesh import check_batch_size, make_mesh
from glm_jax.train.optimizer import parameter_count


def compile_finetune_step(
    config: FinetuneRunConfig,
    network: GLMConfig,
    topology: Topology,
    name: str,
    compiler_options: Mapping[str, str | bool | int],
) -> StepReport:
    """Compiles the step that `glm-jax finetune` runs for this configuration, and analyses it.

    Args:
      config: of the run; its data and initial weights are not read.
      network: of the initial weights.
      topology, name, compiler_options: as in `compile_step`.

    Raises:
      UsageError: the mesh, the batch or the network don't go together.
      DoesNotFitError: a chip has too little memory.
    """
    settings, length = config.finetune, config.task.sequence_length
    if length > network.max_sequence_length:
        raise UsageError(
            f"task.sequence_length is {length}, but the position tables of the network end at "
            f"{network.max_sequence_length}"
        )
    mesh = make_mesh(config.mesh, topology.devices)
    check_batch_size(settings.batch_size // settings.accumulation_steps, mesh)
    batch = placeholder_batch(config)
    model = with_settings(config, network, mesh)
    separate, is_trained = trained_parameters(config, model)
    scorer, extras = scorer_of(
        config,
        GLM(model, linear=linear_kind(config.lora), num_separate_layers=separate),
        config.task.task,
        has_choices=batch["tokens"].ndim == 3,
        answer_length=0,
    )
    program = make_program(config, scorer, extras, mesh, is_trained, num_steps=1)
    sharding = batch_sharding(mesh)
    abstract = {
        key: jax.ShapeDtypeStruct(values.shape, values.dtype, sharding=sharding)
        for key, values in batch.items()
    }
    settings = program.settings_of(config.finetune.seed)
    with jax.set_mesh(mesh):
        lowered = program.train_step.lower(
            program.abstract_state, abstract, settings, program.abstract_frozen
        )
    trained, frozen = program.abstract_state.params, program.abstract_frozen
    size, parameters = step_size(batch), parameter_count(trained) + parameter_count(frozen)
    work = Work(
        *(model, parameters, int(size.rows), int(size.length), size.logit_share),
        frozen_parameters=layer_size(frozen),
    )
    return compile_and_report(lowered, work, mesh, topology, name, compiler_options)
