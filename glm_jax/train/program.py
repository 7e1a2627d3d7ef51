"""The compiled functions of a run and the layout of what they work on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree, Shaped

from glm_jax.checkpoint import abstract_with_shardings
from glm_jax.evaluate import Sums, make_evaluation_step
from glm_jax.model import GLM, GLMConfig
from glm_jax.parallel.rules import batch_sharding, initialize_sharded, parameter_shardings
from glm_jax.train.gradients import (
    Batch,
    GradientFunction,
    LossFunction,
    clipped_means,
    global_mean,
    make_loss_function,
)
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
    accumulation_steps: int = 1,
    accumulation: str = "global_mean",
) -> Program:
    """Lays the train state out over the mesh and prepares its functions; compiles nothing yet.

    Args:
      model_config: the network.
      optimizer_config: the update.
      mesh: where the state lives.
      seed: decides initial parameters and dropout.
      accumulation_steps: micro-batches that a step takes one after another.
      accumulation: how they become one update, one of `ACCUMULATIONS`.
    """
    model = GLM(model_config)
    optimizer = make_optimizer(optimizer_config)

    def init(key):
        return initial_state(_initial_params(model, key), optimizer)

    key = jax.random.key(seed)
    boxed = jax.eval_shape(init, key)
    shardings = parameter_shardings(boxed, mesh)
    train_step = make_train_step(
        _gradient_function(
            accumulation, make_loss_function(model), accumulation_steps, optimizer_config.clip_norm
        ),
        optimizer,
        learning_rate_schedule(optimizer_config),
        seed=seed,
    )
    return Program(
        abstract_state=abstract_with_shardings(nn.unbox(boxed), shardings),
        initialize=lambda: initialize_sharded(init, mesh, key),
        train_step=jax.jit(
            train_step,
            in_shardings=(shardings, batch_sharding(mesh)),
            out_shardings=(shardings, _replicated(mesh)),
            donate_argnums=0,
        ),
        evaluation_step=compile_evaluation(model, shardings.params, mesh),
    )


def _gradient_function(
    accumulation: str, loss_sum: LossFunction, accumulation_steps: int, clip_norm: float
) -> GradientFunction:
    if accumulation == "clipped_means":
        return clipped_means(loss_sum, accumulation_steps, clip_norm)
    return global_mean(loss_sum, accumulation_steps)


def compile_evaluation(model: GLM, shardings: PyTree, mesh: Mesh) -> Callable[..., Sums]:
    """The evaluation step over parameters laid out by `shardings`."""
    return jax.jit(
        make_evaluation_step(model),
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=_replicated(mesh),
    )


def abstract_params(model: GLM, mesh: Mesh) -> PyTree:
    """Shapes, dtypes and shardings of the model's parameters over the mesh."""
    boxed = jax.eval_shape(lambda key: _initial_params(model, key), jax.random.key(0))
    return abstract_with_shardings(nn.unbox(boxed), parameter_shardings(boxed, mesh))


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


def process_rows(mesh: Mesh, batch_size: int) -> range:
    """The rows of the global batch that this process's devices hold."""
    slices = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    bounds = [index[0].indices(batch_size)[:2] for index in slices if index is not None]
    return range(min(start for start, _ in bounds), max(stop for _, stop in bounds))


def to_devices(
    batches: Iterable[Mapping[str, np.ndarray]], mesh: Mesh, batch_size: int
) -> Iterator[dict[str, Shaped[Array, "B ..."]]]:
    """Global arrays of the batches whose rows of this process are given."""
    sharding = batch_sharding(mesh)
    for batch in batches:
        yield {
            name: jax.make_array_from_process_local_data(
                sharding, rows, (batch_size, *rows.shape[1:])
            )
            for name, rows in batch.items()
        }


def _initial_params(model: GLM, key: Array) -> PyTree:
    """Parameters do not depend on the batch's size, so the smallest will do."""
    tokens = jnp.zeros((1, 1), jnp.int32)
    positions = jnp.zeros((1, 2, 1), jnp.int32)
    return model.init(key, tokens, positions, jnp.zeros((1,), jnp.int32))["params"]


def _replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())
