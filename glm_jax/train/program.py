"""The compiled functions of a run and the layout of what they work on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from glm_jax.errors import UsageError
from glm_jax.model import GLM, GLMConfig
from glm_jax.model.attention.choose import check_attention
from glm_jax.model.initial import initial_params
from glm_jax.parallel.batches import Batch, batch_sharding, batch_specs
from glm_jax.parallel.layout import (
    DATA_AXES,
    DEFAULT_LAYOUT,
    LENGTH_AXES,
    LayoutConfig,
    abstract_with_shardings,
    compile_initializer,
    parameter_shardings,
    parameter_specs,
    shapes_over,
)
from glm_jax.parallel.mesh import MESH_AXES, check_batch_size, platform_of, train_step_options
from glm_jax.train.clipped_accumulation import clipped_means
from glm_jax.train.config import RunConfig
from glm_jax.train.evaluate import Sums, make_evaluation_step
from glm_jax.train.gradients import (
    GradientFunction,
    LossFunction,
    gradient_sums,
    make_loss_function,
    mean_gradients,
    sums_over_mesh,
)
from glm_jax.train.loss import TARGET_ROWS, num_target_rows
from glm_jax.train.optimizer import OptimizerConfig, make_optimizer
from glm_jax.train.step import (
    Metrics,
    StepSettings,
    TrainState,
    initial_state,
    make_train_step,
    step_settings,
)


@dataclasses.dataclass(frozen=True)
class Program:
    """A run's functions over one mesh.

    Attributes:
      abstract_state: shapes, dtypes and shardings of the train state.
      compile_initialize: compiles what makes the first state, every device its own shard.
      settings: the run's seed and the numbers of its optimizer, on the host. They are arguments of
        the step, so that runs which differ in them share the compiled one.
      train_step: (state, batch, settings) -> (state, metrics); the given state is donated.
      evaluation_step: (params, batch) -> sums.
    """

    abstract_state: TrainState
    compile_initialize: Callable[[], Callable[[], TrainState]]
    settings: StepSettings
    train_step: Callable[[TrainState, Batch, StepSettings], tuple[TrainState, Metrics]]
    evaluation_step: Callable[[PyTree, Batch], Sums]

    def initialize(self) -> TrainState:
        """The first state."""
        return self.compile_initialize()()


def make_program(
    model_config: GLMConfig,
    optimizer_config: OptimizerConfig,
    mesh: Mesh,
    *,
    seed: int,
    layout: LayoutConfig = DEFAULT_LAYOUT,
    target_fraction: float = 1.0,
    loss_chunks: int = 1,
    accumulation_steps: int = 1,
    accumulation: str = "global_mean",
) -> Program:
    """Shards the train state over the mesh and prepares its functions, without compiling them.

    Args:
      model_config: the network.
      optimizer_config: the update.
      mesh: where the state lives.
      seed: decides initial parameters and dropout.
      layout: how state and batch are sharded over the mesh.
      target_fraction: the loss capacity, as a share of the positions.
      loss_chunks: parts of these positions that logits are computed for one after another.
      accumulation_steps: micro-batches that a step takes one after another.
      accumulation: how they become one update, one of `ACCUMULATIONS`.
    """
    model = GLM(model_config)
    optimizer = make_optimizer(optimizer_config)

    def init(key):
        return initial_state(initial_params(model, key), optimizer)

    key = jax.random.key(seed)
    boxed = shapes_over(mesh, init, key)
    shardings = parameter_shardings(boxed, mesh, layout)
    param_specs = parameter_specs(boxed.params, mesh, layout)
    sharded_model = model.clone(param_specs=param_specs)
    gradients_of = gradient_function(
        make_loss_function(sharded_model, target_fraction=target_fraction, loss_chunks=loss_chunks),
        mesh,
        param_specs,
        accumulation_steps=accumulation_steps,
        accumulation=accumulation,
        clip_norm=optimizer_config.clip_norm,
    )
    train_step = make_train_step(gradients_of, optimizer_config)
    options = train_step_options(mesh, model_config.compute_dtype, model_config.hidden_size)
    return Program(
        abstract_state=abstract_with_shardings(nn.unbox(boxed), shardings),
        compile_initialize=partial(compile_initializer, init, mesh, key, layout=layout),
        settings=step_settings(optimizer_config, seed),
        train_step=jit_train_step(train_step, shardings, mesh, compiler_options=options),
        evaluation_step=compile_evaluation(
            model,
            shardings.params,
            mesh,
            micro_batches=accumulation_steps,
            loss_chunks=loss_chunks,
        ),
    )


def jit_train_step(
    train_step: Callable,
    shardings: TrainState,
    mesh: Mesh,
    *frozen: PyTree,
    compiler_options: dict[str, Any] | None = None,
) -> Callable:
    """The train step with its shardings, and those of frozen parameters where there are some.

    The given state is donated.
    """
    replicated = _replicated(mesh)
    return jax.jit(
        train_step,
        in_shardings=(shardings, batch_sharding(mesh), replicated, *frozen),
        out_shardings=(shardings, replicated),
        donate_argnums=0,
        compiler_options=compiler_options,
    )


def gradient_function(
    loss_of: LossFunction,
    mesh: Mesh,
    param_specs: PyTree,
    *,
    accumulation_steps: int,
    accumulation: str,
    clip_norm: float,
) -> GradientFunction:
    """The gradient of a batch over the mesh, by one of `ACCUMULATIONS`."""
    if accumulation == "clipped_means":
        sums = partial(sums_over_mesh, partial(gradient_sums, loss_of), mesh, param_specs)
        return partial(clipped_means, sums, accumulation_steps, clip_norm)
    local_sums = partial(gradient_sums, loss_of, accumulation_steps=accumulation_steps)
    return partial(mean_gradients, partial(sums_over_mesh, local_sums, mesh, param_specs))


def check_parts(config: GLMConfig, mesh: Mesh, sequence_length: int) -> None:
    """Makes sure that network and sequences can be sharded, and attention be computed.

    Raises:
      UsageError: the tensor axis does not divide the heads, the axes that shard positions do not
        divide the sequence, or the configured attention can't do what is asked of it.
    """
    tensor = mesh.shape["tensor"]
    if config.num_attention_heads % tensor:
        raise UsageError(
            f"model.num_attention_heads is {config.num_attention_heads}, which mesh.tensor = "
            f"{tensor} does not divide"
        )
    context = math.prod(mesh.shape[axis] for axis in LENGTH_AXES)
    if sequence_length % (context * tensor):
        raise UsageError(
            f"data.sequence_length is {sequence_length}, which the {context} x {tensor} parts of "
            f"{' x '.join((*LENGTH_AXES, 'tensor'))} do not divide"
        )
    # The queries of one device, and the keys of all.
    for length in (sequence_length // context, sequence_length):
        check_attention(
            config.attention,
            platform=platform_of(mesh),
            attention_dropout=config.attention_dropout,
            sequence_length=length,
            head_size=config.head_size,
        )


def check_loss_chunks(mesh: Mesh, positions: int, target_fraction: float, loss_chunks: int) -> None:
    """Makes sure that the positions of the loss can be split into chunks.

    Args:
      mesh: what they are sharded over.
      positions: of the batch, or of one of its micro-batches, over all devices.
      target_fraction, loss_chunks: as in `make_program`.

    Raises:
      UsageError: the positions of one device do not divide.
    """
    tensor = mesh.shape["tensor"]
    local = positions // math.prod(mesh.shape[axis] for axis in DATA_AXES)
    rows = num_target_rows(local, target_fraction, math.lcm(TARGET_ROWS, tensor)) // tensor
    for name, count in (("train.target_fraction", rows), ("evaluation", local // tensor)):
        if count % loss_chunks:
            raise UsageError(
                f"train.loss_chunks is {loss_chunks}, which does not divide the {count} positions "
                f"that {name} leaves to one device"
            )


def compile_evaluation(
    model: GLM, shardings: PyTree, mesh: Mesh, *, micro_batches: int = 1, loss_chunks: int = 1
) -> Callable[..., Sums]:
    """The evaluation step over parameters laid out by `shardings`.

    Micro-batches and chunks are those of training, so that evaluation needs no more memory.
    """
    param_specs = jax.tree.map(lambda sharding: sharding.spec, shardings)
    local = make_evaluation_step(
        model.clone(param_specs=param_specs),
        num_micro_batches=micro_batches,
        loss_chunks=loss_chunks,
    )

    def evaluation_step(params, batch):
        return jax.shard_map(
            lambda params, batch: jax.lax.psum(local(params, batch), MESH_AXES),
            mesh=mesh,
            in_specs=(param_specs, batch_specs(batch)),
            out_specs=PartitionSpec(),
            check_vma=False,
        )(params, batch)

    return jax.jit(
        evaluation_step,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=_replicated(mesh),
    )


def _replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def check_layout(config: RunConfig, mesh: Mesh) -> None:
    """Makes sure that a run's batches, network and loss can be divided over a mesh.

    Raises:
      UsageError: batch, network, sequence or attention do not fit the mesh.
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


def program_of(config: RunConfig, mesh: Mesh) -> Program:
    """The functions that training runs, and that are compiled ahead of time.

    Raises:
      UsageError: batch, network, sequence or attention do not fit the mesh.
    """
    check_layout(config, mesh)
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
