"""The compiled functions of a finetuning run: its step, and the scores of examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, PyTree, UInt32

from glm_jax.finetune.losses import LOSSES, cross_entropy, masked_scores
from glm_jax.finetune.model_scores import ScoreFunction, Scorer
from glm_jax.finetune.trainable import (
    IsTrained,
    from_paths,
    join,
    leaf_paths,
    partition,
    train_all,
)
from glm_jax.model.initial import initial_params
from glm_jax.parallel.batches import Batch, batch_sharding, batch_specs
from glm_jax.parallel.collectives import axis_size
from glm_jax.parallel.layout import (
    BATCH_AXES,
    DEFAULT_LAYOUT,
    TENSOR,
    LayoutConfig,
    abstract_with_shardings,
    initialize_sharded,
    parameter_shardings,
    parameter_specs,
)
from glm_jax.train.gradients import (
    GradientFunction,
    Gradients,
    LossSum,
    SumFunction,
    gradient_sums,
    sums_over_mesh,
)
from glm_jax.train.optimizer import (
    OptimizerConfig,
    Schedule,
    learning_rate_schedule,
    make_optimizer,
)
from glm_jax.train.step import Metrics, TrainState, initial_state, make_train_step

# Extra parameters of a run (a head, prompts) by the name of their subtree, and what makes them.
Extras = Mapping[str, Callable[[Array], PyTree]]


@dataclass(frozen=True)
class FinetuneProgram:
    """A finetuning run's functions over one mesh.

    Attributes:
      abstract_state: shapes, dtypes and shardings of the train state, which holds the trained
        parameters only.
      abstract_frozen: the same of the frozen parameters, in a tree of their own.
      initialize: makes the state before the first step of a run of this seed, with random
        parameters.
      train_step: (state, batch, seed, frozen) -> (state, metrics); the given state is donated. The
        seed, a uint32 on all devices, decides dropout: runs of several seeds share the compiled
        step.
      scores: (params, batch) -> scores of the choices of every example, on all processes; `params`
        are all, see `join`.
    """

    abstract_state: TrainState
    abstract_frozen: PyTree
    initialize: Callable[[int], TrainState]
    train_step: Callable[[TrainState, Batch, UInt32[Array, ""], PyTree], tuple[TrainState, Metrics]]
    scores: Callable[[PyTree, Batch], Float[Array, "B C"]]


def make_finetune_program(
    scorer: Scorer,
    extras: Extras,
    optimizer_config: OptimizerConfig,
    mesh: Mesh,
    *,
    loss: str = "cross_entropy",
    label_smoothing: float = 0.0,
    accumulation_steps: int = 1,
    layout: LayoutConfig = DEFAULT_LAYOUT,
    is_trained: IsTrained = train_all,
) -> FinetuneProgram:
    """Shards the train state over the mesh and prepares its functions, without compiling them.

    Args:
      scorer: the network, and how its answers are scored.
      extras: what makes the parameters that the network itself does not have.
      optimizer_config: the update.
      mesh: where the state lives.
      loss: one of `LOSSES`.
      label_smoothing: of the cross entropy.
      accumulation_steps: micro-batches that a step takes one after another.
      layout: how the network's parameters are sharded; extra ones are replicated.
      is_trained: which parameters are trained, by their paths. The others are frozen: they have
        neither gradients nor optimizer state. Where a layer only ever casts one to the compute
        dtype, it is kept in that.
    """
    optimizer = make_optimizer(optimizer_config)
    init_params = partial(_initial_params, scorer, extras)

    def init(key):
        return initial_state(partition(init_params(key), is_trained)[0], optimizer)

    key = jax.random.key(0)
    boxed, boxed_params = jax.eval_shape(init, key), jax.eval_shape(init_params, key)
    specs = parameter_specs(boxed_params, mesh, layout)
    shardings = parameter_shardings(boxed, mesh, layout)
    boxed_frozen = partition(boxed_params, is_trained)[1]
    frozen = _abstract_frozen(boxed_frozen, mesh, layout, scorer.model.config.compute_dtype)
    frozen_shardings = jax.tree.map(lambda leaf: leaf.sharding, frozen)
    scores = replace(scorer, model=scorer.model.clone(param_specs=specs))
    loss_of = partial(_loss_sum, scores, loss, label_smoothing)
    sums = partial(gradient_sums, loss_of, accumulation_steps=accumulation_steps)
    sums = _sums_over_mesh(sums, mesh, specs, is_trained)
    gradients_of = partial(_mean_over_examples, sums)
    step = partial(_train_step, gradients_of, optimizer, learning_rate_schedule(optimizer_config))
    replicated = NamedSharding(mesh, PartitionSpec())
    return FinetuneProgram(
        abstract_state=abstract_with_shardings(nn.unbox(boxed), shardings),
        abstract_frozen=frozen,
        initialize=lambda seed: initialize_sharded(
            init, mesh, jax.random.key(seed_value(seed)), layout=layout
        ),
        train_step=jax.jit(
            step,
            in_shardings=(shardings, batch_sharding(mesh), replicated, frozen_shardings),
            out_shardings=(shardings, replicated),
            donate_argnums=0,
        ),
        scores=_jit_scores(scores, mesh, specs, join(shardings.params, frozen_shardings)),
    )


def seed_value(seed: int) -> np.uint32:
    """What keys of random numbers are made from: the last 32 bits of a seed."""
    return np.uint32(seed % (1 << 32))


def _train_step(
    gradients_of: GradientFunction,
    optimizer: optax.GradientTransformation,
    learning_rate: Schedule,
    state: TrainState,
    batch: Batch,
    seed: UInt32[Array, ""],
    frozen: PyTree,
) -> tuple[TrainState, Metrics]:
    step = make_train_step(gradients_of, optimizer, learning_rate, seed=seed, weights="weight")
    return step(state, batch, frozen)


def _initial_params(scorer: Scorer, extras: Extras, key: Array) -> dict[str, PyTree]:
    """Random parameters of the network, and of what a run adds to it."""
    made = {
        name: make(jax.random.fold_in(key, number))
        for number, (name, make) in enumerate(extras.items(), start=1)
    }
    return {**initial_params(scorer.model, key), **made}


def _sums_over_mesh(
    sums: SumFunction, mesh: Mesh, specs: PyTree, is_trained: IsTrained
) -> SumFunction:
    """`sums_over_mesh` of trained and frozen parameters."""
    trained, frozen = partition(specs, is_trained)
    return partial(sums_over_mesh, sums, mesh, trained, frozen_specs=(frozen,))


def _abstract_frozen(boxed: PyTree, mesh: Mesh, layout: LayoutConfig, compute_dtype: str) -> PyTree:
    """Shapes, dtypes and shardings of frozen parameters."""

    def dtype(path: str, shape: jax.ShapeDtypeStruct) -> jnp.dtype:
        # LayerNorm computes in float32.
        kept = "layernorm" in path
        return shape.dtype if kept else jnp.dtype(compute_dtype)

    shapes = from_paths(
        (path, jax.ShapeDtypeStruct(shape.shape, dtype(path, shape)))
        for path, shape in leaf_paths(nn.unbox(boxed))
    )
    return abstract_with_shardings(shapes, parameter_shardings(boxed, mesh, layout))


def _loss_sum(
    scores_of: ScoreFunction,
    loss: str,
    smoothing: float,
    params: PyTree,
    batch: Batch,
    key: Array,
    frozen: PyTree,
) -> LossSum:
    """Sum of the weighted losses of one device's examples."""
    params = join(params, frozen)
    scores = masked_scores(scores_of(params, batch, key), batch.get("choice_mask"))
    if loss == "cross_entropy":
        losses = cross_entropy(scores, batch["label"], smoothing)
    else:
        losses = LOSSES[loss](scores, batch["label"])
    total = jnp.sum(losses * batch["weight"])
    # Tensor-parallel devices have the same examples, and sums are over all devices.
    once = total / axis_size(TENSOR)
    return LossSum(total + jax.lax.stop_gradient(once - total), jnp.zeros((), jnp.int32))


def _mean_over_examples(
    sums: SumFunction, params: PyTree, batch: Batch, key: Array, frozen: PyTree
) -> Gradients:
    """The mean over the examples of a batch that are not there to fill it up."""
    total = sums(params, batch, key, frozen)
    normalizer = jnp.maximum(jnp.sum(batch["weight"]), 1.0)
    loss, values = jax.tree.map(lambda value: value / normalizer, (total.loss, total.values))
    return Gradients(loss, total.overflow, values, optax.global_norm(values)[None])


def _jit_scores(scores: ScoreFunction, mesh: Mesh, specs: PyTree, shardings: PyTree) -> Callable:
    """The scores of batches with the shardings of all parameters."""
    return jax.jit(
        partial(_scores_over_mesh, scores, mesh, specs),
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=NamedSharding(mesh, PartitionSpec()),
    )


def _scores_over_mesh(
    scores: ScoreFunction, mesh: Mesh, specs: PyTree, params: PyTree, batch: Batch
) -> Float[Array, "B C"]:
    def local(params, batch):
        return masked_scores(scores(params, batch, None), batch.get("choice_mask"))

    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(specs, batch_specs(batch)),
        out_specs=PartitionSpec(BATCH_AXES),
        check_vma=False,
    )(params, batch)
