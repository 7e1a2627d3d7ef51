"""The step of a finetuning run, compiled for TPUs and reported on."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import Mesh

from glm_jax.compile.report import StepReport
from glm_jax.compile.step import Work, compile_and_report
from glm_jax.compile.topology import Topology
from glm_jax.errors import UsageError
from glm_jax.finetune.config import FinetuneRunConfig
from glm_jax.finetune.lora import linear_kind
from glm_jax.finetune.opening import trained_parameters, with_settings
from glm_jax.finetune.placeholder import placeholder_batch
from glm_jax.finetune.prepare import make_program, scorer_of
from glm_jax.finetune.program import FinetuneProgram
from glm_jax.finetune.step_size import step_size
from glm_jax.finetune.trainable import layer_size
from glm_jax.model import GLM, GLMConfig
from glm_jax.parallel.batches import batch_sharding
from glm_jax.parallel.mesh import check_batch_size, make_mesh, platform_of
from glm_jax.seq2seq.config import Seq2SeqRunConfig
from glm_jax.seq2seq.placeholder import placeholder_pairs
from glm_jax.seq2seq.prepare import make_text_program, with_prefix
from glm_jax.train.optimizer import parameter_count


def compile_finetune_step(
    config: FinetuneRunConfig | Seq2SeqRunConfig,
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
    settings = config.finetune
    if config.sequence_length > network.max_sequence_length:
        raise UsageError(
            f"{config.length_setting} is {config.sequence_length}, but the position tables of the "
            f"network end at {network.max_sequence_length}"
        )
    mesh = make_mesh(config.mesh, topology.devices)
    check_batch_size(settings.batch_size // settings.accumulation_steps, mesh)
    model = with_settings(config, network, mesh)
    if isinstance(config, Seq2SeqRunConfig):
        batch = placeholder_pairs(config)
        model = with_prefix(config, model)
        _, is_trained = trained_parameters(config, model)
        program = make_text_program(config, model, mesh, is_trained, num_steps=1)
        step = program.language_model_step
    else:
        batch = placeholder_batch(config)
        program = _program_of_choices(config, model, mesh, batch)
        step = program.train_step
    sharding = batch_sharding(mesh)
    abstract = {
        key: jax.ShapeDtypeStruct(values.shape, values.dtype, sharding=sharding)
        for key, values in batch.items()
    }
    step_settings = program.settings_of(settings.seed)
    with jax.set_mesh(mesh):
        lowered = step.lower(
            program.abstract_state, abstract, step_settings, program.abstract_frozen
        )
    trained, frozen = program.abstract_state.params, program.abstract_frozen
    size, parameters = step_size(batch), parameter_count(trained) + parameter_count(frozen)
    work = Work(
        *(model, parameters, int(size.rows), int(size.length), size.logit_share),
        frozen_parameters=layer_size(frozen),
    )
    return compile_and_report(lowered, work, mesh, topology, name, compiler_options)


def _program_of_choices(
    config: FinetuneRunConfig, model: GLMConfig, mesh: Mesh, batch: Mapping[str, np.ndarray]
) -> FinetuneProgram:
    separate, is_trained = trained_parameters(config, model)
    scorer, extras = scorer_of(
        config,
        GLM(model, linear=linear_kind(config.lora), num_separate_layers=separate),
        config.task.task,
        platform_of(mesh),
        has_choices=batch["tokens"].ndim == 3,
        answer_length=0,
    )
    return make_program(config, scorer, extras, mesh, is_trained, num_steps=1)
