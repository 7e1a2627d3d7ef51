"""Everything that can be known of a run before it starts, found out before anything is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

import jax
from etils import epath
from jax.sharding import Mesh
from jaxtyping import PyTree

from glm_jax.checkpoints.location import check_checkpoint_folder
from glm_jax.checkpoints.record import complete_steps, find_step, read_record
from glm_jax.data.store.store import open_store
from glm_jax.errors import RunError, UsageError
from glm_jax.io.paths import is_url
from glm_jax.parallel.mesh import make_mesh
from glm_jax.tokenizer import load_tokenizer
from glm_jax.train.compile_ahead import compile_in_background, lower_step
from glm_jax.train.config import RunConfig
from glm_jax.train.profile import ProfileSteps
from glm_jax.train.program import Program, check_layout, program_of
from glm_jax.train.resume import check_same_run, initial_weights
from glm_jax.train.step import TrainState

if TYPE_CHECKING:
    from glm_jax.data.batches.inputs import Inputs


@dataclasses.dataclass(frozen=True)
class PreparedRun:
    """What a run is made of, opened and checked.

    Attributes:
      mesh: the devices.
      inputs: the data.
      program: the functions of its steps.
      train_step: that of the program, being compiled; None where a checkpoint has all steps.
      initialize: what makes the program's first state, being compiled; None where there is a
        checkpoint.
      initial_weights: the parameters that a new run starts from; None for random ones, and where
        the run has a checkpoint of its own.
    """

    mesh: Mesh
    inputs: Inputs
    program: Program
    train_step: Future[jax.stages.Compiled] | None
    initialize: Future[Callable[[], TrainState]] | None
    initial_weights: PyTree | None


def prepare_run(
    config: RunConfig, folder: epath.Path, profile_steps: ProfileSteps | None
) -> PreparedRun:
    """Opens what a run needs and checks that all of it fits together; writes nothing.

    Its programs are compiled meanwhile, which takes as long as TensorFlow and its first batch.

    Args:
      config: the run.
      folder: its run folder.
      profile_steps: steps to trace for the profiler.

    Raises:
      UsageError: stores, splits, tokenizer, supervised examples, sequences, batches, mesh, model,
        initial weights, steps to trace, or an earlier checkpoint do not fit together.
      RunError: a store is damaged.
    """
    check_folder(folder)
    for path in config.data.store_weights:
        open_store(path)  # what is most often wrong, before anything that takes time
    mesh = make_mesh(config.mesh)
    program = program_of(config, mesh)
    train_step, initialize = compile_programs(config, folder, program, mesh)

    from glm_jax.data.batches.inputs import open_inputs  # which imports TensorFlow

    inputs = open_inputs(
        config.data, config.blanks, config.model.vocab_size, config.evaluation_blanks
    )
    # The last step is always evaluated, so that every run needs both.
    inputs.open("train", "validation")
    steps_done = check_saved_run(folder, config, inputs.tokenizer.fingerprint)
    if profile_steps:
        check_profile_steps(profile_steps, steps_done or 0, config.train.num_steps)
    weights = None
    if steps_done is None and config.train.initial_weights:
        weights = initial_weights(config.train.initial_weights, config.model, mesh)
    return PreparedRun(mesh, inputs, program, train_step, initialize, weights)


def compile_programs(
    config: RunConfig, folder: epath.Path, program: Program, mesh: Mesh
) -> tuple[Future[jax.stages.Compiled] | None, Future[Callable[[], TrainState]] | None]:
    """Starts to compile what a run needs for its first step: `train_step` and `initialize`."""
    steps_done = max(complete_steps(folder / "checkpoints"), default=0)
    if steps_done >= config.train.num_steps:
        return None, None
    # Lowered here: the compiler, which takes longest, waits for nothing else.
    step = lower_step(program, config.data.batch_size, config.data.sequence_length, mesh)
    train_step = compile_in_background(step.compile)
    if steps_done:
        return train_step, None
    return train_step, compile_in_background(program.compile_initialize)


def check_evaluation(config: RunConfig, folder: epath.Path, split: str) -> tuple[Inputs, Mesh]:
    """Opens what an evaluation needs and checks that it fits together, before weights are read.

    Args:
      config: the run, and its evaluation.
      folder: its run folder.
      split: the part of the stores to evaluate on.

    Raises:
      UsageError: stores, split, tokenizer, sequences, batches or mesh do not fit together.
      RunError: a store is damaged.
    """
    from glm_jax.data.batches.inputs import open_inputs

    inputs = open_inputs(config.data, config.evaluation_blanks, config.model.vocab_size)
    if load_tokenizer(str(folder)).fingerprint != inputs.tokenizer.fingerprint:
        raise UsageError(
            f"the store {config.data.main_store} was built with another tokenizer "
            f"than the run {folder}"
        )
    inputs.open(split)
    mesh = make_mesh(config.mesh)
    # Whatever platform the run was for, an evaluation uses the attention of all.
    model = dataclasses.replace(config.model, attention="xla")
    check_layout(dataclasses.replace(config, model=model), mesh)
    return inputs, mesh


def check_folder(folder: epath.Path) -> None:
    """Makes sure that a path can become, or is, a run folder.

    Raises:
      UsageError: it can't.
    """
    check_checkpoint_folder(folder)
    if is_url(folder):
        return
    above = folder
    while not above.exists():
        above = above.parent
    if not above.is_dir():
        raise UsageError(f"train.run_folder is {folder}, but {above} is not a folder")


def check_saved_run(folder: epath.Path, config: RunConfig, fingerprint: str) -> int | None:
    """Makes sure that the run can resume from its newest checkpoint.

    Returns:
      The steps done; None where there is no checkpoint.

    Raises:
      UsageError: model, optimizer or tokenizer are others.
    """
    if not (folder / "checkpoints").is_dir():
        return None
    try:
        step_folder = find_step(folder / "checkpoints")
    except UsageError:
        return None
    try:
        record = read_record(step_folder)
    except RunError:
        return int(step_folder.name)  # damaged: another one is looked for when the run resumes
    check_same_run(record, config.model, config.optimizer, fingerprint)
    return record["step"]


def check_profile_steps(steps: ProfileSteps, steps_done: int, num_steps: int) -> None:
    """Makes sure that some steps to trace are still to come.

    Raises:
      UsageError: none is.
    """
    if steps.last <= steps_done or steps.first > num_steps:
        raise UsageError(
            f"--profile_steps is {steps.first}:{steps.last}, but this start runs from step "
            f"{steps_done + 1} to train.num_steps = {num_steps}"
        )
