"""The compiled functions of a run and the layout of what they work on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree, Shaped

from glm_jax.checkpoint import abstract_with_shardings
from glm_jax.errors import UsageError
from glm_jax.evaluate import Sums, make_evaluation_step
from glm_jax.model import GLM, GLMConfig
from glm_jax.model.attention_choice import check_attention
from glm_jax.parallel.mesh import MESH_AXES
from glm_jax.parallel.rules import (
    DATA_AXES,
    DEFAULT_LAYOUT,
    LENGTH_AXES,
    LayoutConfig,
    batch_sharding,
    initialize_sharded,
    parameter_shardings,
    parameter_specs,
)
from glm_jax.train.gradients import (
    Batch,
    batch_specs,
    clipped_means,
    global_mean,
    make_loss_function,
    over_mesh,
    sum_gradients,
)
from glm_jax.train.loss import TARGET_ROWS, num_target_rows
from glm_jax.train.optimizer import OptimizerConfig, learning_rate_schedule, make_optimizer
from glm_jax.train.state import TrainState, initial_state
from glm_jax.train.step import Metrics, make_train_step


@dataclasses.dataclass(frozen=True)
class Program:
    """A run's functions over one mesh.

    Attributes:
      abstract_state: shapes, dtypes and shardings of the train state.
      initialize: makes the first state, every device its own part.
      train_step: (state, batch) -> (state, metrics); the given state is used up.
      evaluation_step: (params, batch) -> sums.
    """

    abstract_state: TrainState
    initialize: Callable[[], TrainState]
    train_step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
    evaluation_step: Callable[[PyTree, Batch], Sums]


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
    """Lays the train state out over the mesh and prepares its functions; compiles nothing yet.

    Args:
      model_config: the network.
      optimizer_config: the update.
      mesh: where the state lives.
      seed: decides initial parameters and dropout.
      layout: how state and batch are cut over the mesh.
      target_fraction: share of the positions that the loss has room for.
      loss_chunks: parts of these positions that logits are computed for one after another.
      accumulation_steps: micro-batches that a step takes one after another.
      accumulation: how they become one update, one of `ACCUMULATIONS`.
    """
    model = GLM(model_config, layout)
    optimizer = make_optimizer(optimizer_config)

    def init(key):
        return initial_state(_initial_params(model, key), optimizer)

    key = jax.random.key(seed)
    boxed = jax.eval_shape(init, key)
    shardings = parameter_shardings(boxed, mesh, layout)
    together = accumulation_steps if accumulation == "global_mean" else 1
    loss_function = make_loss_function(
        model, target_fraction=target_fraction, loss_chunks=loss_chunks
    )
    sums = over_mesh(
        sum_gradients(loss_function, together),
        parameter_specs(boxed.params, mesh, layout),
        mesh,
    )
    gradients = global_mean(sums)
    if accumulation == "clipped_means":
        gradients = clipped_means(sums, accumulation_steps, optimizer_config.clip_norm)
    train_step = make_train_step(
        gradients, optimizer, learning_rate_schedule(optimizer_config), seed=seed
    )
    return Program(
        abstract_state=abstract_with_shardings(nn.unbox(boxed), shardings),
        initialize=lambda: initialize_sharded(init, mesh, key, layout=layout),
        train_step=jax.jit(
            train_step,
            in_shardings=(shardings, batch_sharding(mesh)),
            out_shardings=(shardings, _replicated(mesh)),
            donate_argnums=0,
        ),
        evaluation_step=compile_evaluation(
            model,
            shardings.params,
            mesh,
            micro_batches=accumulation_steps,
            loss_chunks=loss_chunks,
        ),
    )


def check_parts(config: GLMConfig, mesh: Mesh, sequence_length: int) -> None:
    """Makes sure that network and sequences can be cut over the mesh, and attention be computed.

    Raises:
      UsageError: the tensor axis does not divide the heads, the axes that cut positions do not
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
            platform=mesh.devices.flat[0].platform,
            attention_dropout=config.attention_dropout,
            sequence_length=length,
            head_size=config.head_size,
        )


def check_loss_chunks(mesh: Mesh, positions: int, target_fraction: float, loss_chunks: int) -> None:
    """Makes sure that the positions of the loss can be cut.

    Args:
      mesh: where they are spread over.
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

    The batch is cut as in training, so that evaluation needs no more memory.
    """
    local = make_evaluation_step(model, num_micro_batches=micro_batches, loss_chunks=loss_chunks)

    def evaluation_step(params, batch):
        return jax.shard_map(
            lambda params, batch: jax.lax.psum(local(params, batch), MESH_AXES),
            mesh=mesh,
            in_specs=(
                jax.tree.map(lambda sharding: sharding.spec, shardings),
                batch_specs(batch),
            ),
            out_specs=PartitionSpec(),
            check_vma=False,
        )(params, batch)

    return jax.jit(
        evaluation_step,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=_replicated(mesh),
    )


def abstract_params(model: GLM, mesh: Mesh) -> PyTree:
    """Shapes, dtypes and shardings of the model's parameters over the mesh."""
    boxed = jax.eval_shape(lambda key: _initial_params(model, key), jax.random.key(0))
    return abstract_with_shardings(nn.unbox(boxed), parameter_shardings(boxed, mesh, model.layout))


def abstract_batch(
    batch_size: int, sequence_length: int, mesh: Mesh
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes, dtypes and shardings of a batch: what a step is compiled for ahead of time."""
    shapes = {
        "tokens": (sequence_length,),
        "targets": (sequence_length,),
        "loss_mask": (sequence_length,),
        "position_ids": (2, sequence_length),
        "prefix_length": (),
        "objective": (),
    }
    sharding = batch_sharding(mesh)
    return {
        name: jax.ShapeDtypeStruct(
            (batch_size, *shape),
            jnp.float32 if name == "loss_mask" else jnp.int32,
            sharding=sharding,
        )
        for name, shape in shapes.items()
    }


def process_rows(mesh: Mesh, batch_size: int) -> list[int]:
    """The rows of the global batch that this process's devices hold, in order.

    They are not always neighbours: a mesh over a torus takes a host's chips apart.
    """
    slices = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    bounds = [index[0].indices(batch_size)[:2] for index in slices if index is not None]
    return sorted({row for start, stop in bounds for row in range(start, stop)})


def to_devices(
    batches: Iterable[Mapping[str, np.ndarray]], mesh: Mesh, batch_size: int
) -> Iterator[dict[str, Shaped[Array, "B ..."]]]:
    """Global arrays of the batches that are given in the rows that `process_rows` names."""
    sharding = batch_sharding(mesh)
    present = np.array(process_rows(mesh, batch_size))

    def spread(values: np.ndarray) -> jax.Array:
        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None
            start, stop, _ = index[0].indices(batch_size)
            first = int(np.searchsorted(present, start))
            return values[first : first + stop - start]

        return jax.make_array_from_callback((batch_size, *values.shape[1:]), sharding, part)

    for batch in batches:
        yield {name: spread(values) for name, values in batch.items()}


def _initial_params(model: GLM, key: Array) -> PyTree:
    """Parameters depend neither on the batch's size, so the smallest will do, nor on attention."""
    model = model.clone(config=dataclasses.replace(model.config, attention="xla"))
    tokens = jnp.zeros((1, 1), jnp.int32)
    positions = jnp.zeros((1, 2, 1), jnp.int32)
    return model.init(key, tokens, positions, jnp.zeros((1,), jnp.int32))["params"]


def _replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())
