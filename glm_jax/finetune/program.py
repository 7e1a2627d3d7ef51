"""The compiled functions of a finetuning run: its step, and the scores of examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, PyTree

from glm_jax.finetune.language_model import (
    is_language_model_batch,
    language_model_loss,
    recognition_scores,
)
from glm_jax.finetune.losses import example_losses, masked_scores
from glm_jax.finetune.model_scores import ScoreFunction, Scorer
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
    Gradients,
    LossFunction,
    LossSum,
    gradient_sums,
    mean_gradients,
    sums_over_mesh,
)
from glm_jax.train.optimizer import (
    OptimizerConfig,
    Schedule,
    learning_rate_schedule,
    make_optimizer,
)
from glm_jax.train.program import jit_train_step
from glm_jax.train.step import Metrics, TrainState, initial_state, make_train_step

# Extra parameters of a run (a head, prompts) by the name of their subtree, and what makes them.
Extras = Mapping[str, Callable[[Array], PyTree]]


@dataclass(frozen=True)
class FinetuneProgram:
    """A finetuning run's functions over one mesh.

    Attributes:
      abstract_state: shapes, dtypes and shardings of the train state.
      initialize: makes the state before the first step, with random parameters.
      train_step: (state, batch) -> (state, metrics); the given state is donated.
      language_model_step: the same for batches whose tokens are learnt.
      scores: (params, batch) -> scores of the choices of every example, on all processes.
      recognition_scores: the same for batches whose tokens are learnt: scores of "no" and "yes".
    """

    abstract_state: TrainState
    initialize: Callable[[], TrainState]
    train_step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
    language_model_step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
    scores: Callable[[PyTree, Batch], Float[Array, "B C"]]
    recognition_scores: Callable[[PyTree, Batch], Float[Array, "B 2"]]

    def step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """The compiled step of the batch's kind."""
        of_kind = self.language_model_step if is_language_model_batch(batch) else self.train_step
        return of_kind(state, batch)

    def score(self, params: PyTree, batch: Batch) -> Float[Array, "B C"]:
        """The compiled scores of the batch's kind."""
        of_kind = self.recognition_scores if is_language_model_batch(batch) else self.scores
        return of_kind(params, batch)


def make_finetune_program(
    scorer: Scorer,
    extras: Extras,
    optimizer_config: OptimizerConfig,
    mesh: Mesh,
    *,
    seed: int,
    loss: str = "cross_entropy",
    label_smoothing: float = 0.0,
    token_smoothing: float = 0.0,
    accumulation_steps: int = 1,
    layout: LayoutConfig = DEFAULT_LAYOUT,
) -> FinetuneProgram:
    """Shards the train state over the mesh and prepares its functions, without compiling them.

    Args:
      scorer: the network, and how its answers are scored.
      extras: what makes the parameters that the network itself does not have.
      optimizer_config: the update.
      mesh: where the state lives.
      seed: decides initial parameters and dropout.
      loss: one of `LOSSES`.
      label_smoothing: of losses of choices, where they have it.
      token_smoothing: the same for batches whose tokens are learnt.
      accumulation_steps: micro-batches that a step takes one after another.
      layout: how the network's parameters are sharded; extra ones are replicated.
    """
    optimizer = make_optimizer(optimizer_config)

    def init(key):
        made = {
            name: make(jax.random.fold_in(key, n + 1))
            for n, (name, make) in enumerate(extras.items())
        }
        return initial_state({**initial_params(scorer.model, key), **made}, optimizer)

    key = jax.random.key(seed)
    boxed = jax.eval_shape(init, key)
    shardings = parameter_shardings(boxed, mesh, layout)
    specs = parameter_specs(boxed.params, mesh, layout)
    scores = replace(scorer, model=scorer.model.clone(param_specs=specs))
    over_mesh = OverMesh(mesh, shardings, specs)
    step_of = partial(
        over_mesh.train_step,
        optimizer=optimizer,
        schedule=learning_rate_schedule(optimizer_config),
        seed=seed,
        accumulation_steps=accumulation_steps,
    )
    choice_loss = partial(_loss_sum, scores, loss, label_smoothing)
    token_loss = partial(language_model_loss, scores, token_smoothing)
    return FinetuneProgram(
        abstract_state=abstract_with_shardings(nn.unbox(boxed), shardings),
        initialize=lambda: initialize_sharded(init, mesh, key, layout=layout),
        train_step=step_of(choice_loss, _mean_over_examples, "weight"),
        language_model_step=step_of(token_loss, mean_gradients, "loss_mask"),
        scores=over_mesh.scores(scores),
        recognition_scores=over_mesh.scores(partial(recognition_scores, scores)),
    )


@dataclass(frozen=True)
class OverMesh:
    """Functions of one device's examples -> compiled functions of global batches.

    Attributes:
      mesh: the devices.
      shardings: of the train state.
      specs: of the parameters.
    """

    mesh: Mesh
    shardings: TrainState
    specs: PyTree

    def train_step(
        self,
        loss_of: LossFunction,
        mean: Callable[..., Gradients],
        weights: str,
        *,
        optimizer: optax.GradientTransformation,
        schedule: Schedule,
        seed: int,
        accumulation_steps: int,
    ) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
        """The step whose loss is `mean` of sums of `loss_of`; `weights` as in `make_train_step`."""
        sums = partial(gradient_sums, loss_of, accumulation_steps=accumulation_steps)
        gradients_of = partial(mean, partial(sums_over_mesh, sums, self.mesh, self.specs))
        step = make_train_step(gradients_of, optimizer, schedule, seed=seed, weights=weights)
        return jit_train_step(step, self.shardings, self.mesh)

    def scores(self, score: ScoreFunction) -> Callable[[PyTree, Batch], Float[Array, "B C"]]:
        """The scores of a batch without dropout, on all processes."""
        return jax.jit(
            partial(_scores_over_mesh, score, self.mesh, self.specs),
            in_shardings=(self.shardings.params, batch_sharding(self.mesh)),
            out_shardings=NamedSharding(self.mesh, PartitionSpec()),
        )


def _loss_sum(
    scores_of: ScoreFunction, loss: str, smoothing: float, params: PyTree, batch: Batch, key: Array
) -> LossSum:
    """Sum of the weighted losses of one device's examples."""
    scores, mask = scores_of(params, batch, key), batch.get("choice_mask")
    losses = example_losses(loss, scores, batch["label"], mask, smoothing)
    total = jnp.sum(losses * batch["weight"])
    # Tensor-parallel devices have the same examples, and sums are over all devices.
    once = total / axis_size(TENSOR)
    return LossSum(total + jax.lax.stop_gradient(once - total), jnp.zeros((), jnp.int32))


def _mean_over_examples(sums: Any, params: PyTree, batch: Batch, key: Array) -> Gradients:
    """The mean over the examples of a batch that are not there to fill it up."""
    total = sums(params, batch, key)
    normalizer = jnp.maximum(jnp.sum(batch["weight"]), 1.0)
    loss, values = jax.tree.map(lambda value: value / normalizer, (total.loss, total.values))
    return Gradients(loss, total.overflow, values, optax.global_norm(values)[None])


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
