"""The compiled functions of a finetuning run: its step, and the scores of examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, PyTree

from glm_jax.finetune.language_model import (
    is_language_model_batch,
    language_model_loss,
    recognition_scores,
)
from glm_jax.finetune.losses import example_losses
from glm_jax.finetune.model_scores import ScoreFunction, Scorer
from glm_jax.finetune.over_mesh import OverMesh, TrainStep, mean_over_examples
from glm_jax.finetune.trainable import IsTrained, from_paths, leaf_paths, partition, train_all
from glm_jax.model.initial import initial_params
from glm_jax.parallel.batches import Batch
from glm_jax.parallel.collectives import axis_size
from glm_jax.parallel.layout import (
    DEFAULT_LAYOUT,
    TENSOR,
    LayoutConfig,
    abstract_with_shardings,
    initialize_sharded,
    parameter_shardings,
    parameter_specs,
    shapes_over,
)
from glm_jax.parallel.mesh import quick_step_options
from glm_jax.train.gradients import LossSum, mean_gradients
from glm_jax.train.optimizer import OptimizerConfig, make_optimizer
from glm_jax.train.step import (
    Metrics,
    StepSettings,
    TrainState,
    initial_state,
    seed_value,
    step_settings,
)

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
      settings_of: a run's seed, and the numbers of its optimizer, on the host. They are arguments
        of the step, so that runs which differ in them share the compiled one.
      train_step: (state, batch, settings, frozen) -> (state, metrics); the given state is donated.
      language_model_step: the same for batches whose tokens are learnt.
      scores: (params, batch) -> scores of the choices of every example, on all processes; `params`
        are all, see `join`.
      recognition_scores: the same for batches whose tokens are learnt: scores of "no" and "yes".
    """

    abstract_state: TrainState
    abstract_frozen: PyTree
    initialize: Callable[[int], TrainState]
    settings_of: Callable[[int], StepSettings]
    train_step: TrainStep
    language_model_step: TrainStep
    scores: Callable[[PyTree, Batch], Float[Array, "B C"]]
    recognition_scores: Callable[[PyTree, Batch], Float[Array, "B 2"]]

    def step(
        self, state: TrainState, batch: Batch, settings: StepSettings, frozen: PyTree
    ) -> tuple[TrainState, Metrics]:
        """The compiled step of the batch's kind."""
        of_kind = self.language_model_step if is_language_model_batch(batch) else self.train_step
        return of_kind(state, batch, settings, frozen)

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
    loss: str = "cross_entropy",
    label_smoothing: float = 0.0,
    token_smoothing: float = 0.0,
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
      label_smoothing: of losses of choices, where they have it.
      token_smoothing: the same for batches whose tokens are learnt.
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
    boxed, boxed_params = shapes_over(mesh, init, key), shapes_over(mesh, init_params, key)
    specs = parameter_specs(boxed_params, mesh, layout)
    shardings = parameter_shardings(boxed, mesh, layout)
    config, (_, kept) = scorer.model.config, partition(boxed_params, is_trained)
    frozen = _abstract_frozen(kept, mesh, layout, config.compute_dtype)
    scores = replace(scorer, model=scorer.model.clone(param_specs=specs))
    over_mesh = OverMesh(mesh, shardings, frozen, specs, is_trained)
    step_of = partial(
        over_mesh.train_step, optimizer=optimizer_config, accumulation_steps=accumulation_steps
    )
    step_of = partial(step_of, compiler_options=quick_step_options(mesh, config.hidden_size))
    choices = partial(_loss_sum, scores, loss, label_smoothing)
    tokens = partial(language_model_loss, scores, token_smoothing)
    return FinetuneProgram(
        abstract_state=abstract_with_shardings(nn.unbox(boxed), shardings),
        abstract_frozen=frozen,
        initialize=lambda seed: initialize_sharded(init, mesh, key_of(seed), layout=layout),
        settings_of=partial(step_settings, optimizer_config),
        train_step=step_of(choices, mean_over_examples, "weight"),
        language_model_step=step_of(tokens, mean_gradients, "loss_mask"),
        scores=over_mesh.scores(scores),
        recognition_scores=over_mesh.scores(partial(recognition_scores, scores)),
    )


def key_of(seed: int) -> Array:
    """The key of a run's random numbers."""
    return jax.random.key(seed_value(seed))


def _initial_params(scorer: Scorer, extras: Extras, key: Array) -> dict[str, PyTree]:
    """Random parameters of the network, and of what a run adds to it."""
    made = {
        name: make(jax.random.fold_in(key, number))
        for number, (name, make) in enumerate(extras.items(), start=1)
    }
    return {**initial_params(scorer.model, key), **made}


def _abstract_frozen(boxed: PyTree, mesh: Mesh, layout: LayoutConfig, compute_dtype: str) -> PyTree:
    """Shapes, dtypes and shardings of frozen parameters."""

    def dtype(path: str, shape: jax.ShapeDtypeStruct) -> jnp.dtype:
        # LayerNorm computes in float32; integers and their scales are what is stored.
        kept = "layernorm" in path or path.endswith("scale")
        kept = kept or not jnp.issubdtype(shape.dtype, jnp.floating)
        return shape.dtype if kept else jnp.dtype(compute_dtype)

    shapes = from_paths(
        (path, jax.ShapeDtypeStruct(shape.shape, dtype(path, shape)))
        for path, shape in leaf_paths(nn.unbox(boxed))
    )
    return abstract_with_shardings(shapes, parameter_shardings(boxed, mesh, layout))


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
