"""Functions of one device's examples -> compiled functions of global batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, PyTree

from glm_jax.finetune.losses import masked_scores
from glm_jax.finetune.model_scores import ScoreFunction
from glm_jax.finetune.trainable import IsTrained, join, partition
from glm_jax.parallel.batches import Batch, batch_sharding, batch_specs
from glm_jax.parallel.layout import BATCH_AXES
from glm_jax.train.gradients import (
    Gradients,
    LossFunction,
    LossSum,
    SumFunction,
    gradient_sums,
    sums_over_mesh,
)
from glm_jax.train.optimizer import OptimizerConfig
from glm_jax.train.program import jit_train_step
from glm_jax.train.step import Metrics, StepSettings, TrainState, make_train_step

TrainStep = Callable[[TrainState, Batch, StepSettings, PyTree], tuple[TrainState, Metrics]]


@dataclass(frozen=True)
class OverMesh:
    """What functions are compiled for.

    Attributes:
      mesh: the devices.
      shardings: of the train state.
      frozen: shapes, dtypes and shardings of the frozen parameters.
      specs: of all parameters.
      is_trained: which of them are trained.
    """

    mesh: Mesh
    shardings: TrainState
    frozen: PyTree
    specs: PyTree
    is_trained: IsTrained

    def train_step(
        self,
        loss_of: LossFunction,
        mean: Callable[..., Gradients],
        weights: str,
        *,
        optimizer: OptimizerConfig,
        accumulation_steps: int,
        compiler_options: dict[str, Any],
    ) -> TrainStep:
        """The step whose loss is `mean` of sums of `loss_of`; `weights` as in `make_train_step`."""

        def of_all(params: PyTree, batch: Batch, key: Array, frozen: PyTree) -> LossSum:
            return loss_of(join(params, frozen), batch, key)

        trained, frozen = partition(self.specs, self.is_trained)
        sums = partial(gradient_sums, of_all, accumulation_steps=accumulation_steps)
        sums = partial(sums_over_mesh, sums, self.mesh, trained, frozen_specs=(frozen,))
        step = make_train_step(partial(mean, sums), optimizer, weights=weights)
        return jit_train_step(
            step,
            self.shardings,
            self.mesh,
            self._frozen_shardings,
            compiler_options=compiler_options,
        )

    def scores(self, score: ScoreFunction) -> Callable[[PyTree, Batch], Float[Array, "B C"]]:
        """The scores of a batch without dropout, on all processes."""
        shardings = join(self.shardings.params, self._frozen_shardings)
        return jax.jit(
            partial(_scores_over_mesh, score, self.mesh, self.specs),
            in_shardings=(shardings, batch_sharding(self.mesh)),
            out_shardings=NamedSharding(self.mesh, PartitionSpec()),
        )

    @property
    def _frozen_shardings(self) -> PyTree:
        return jax.tree.map(lambda leaf: leaf.sharding, self.frozen)


def mean_over_examples(
    sums: SumFunction, params: PyTree, batch: Batch, key: Array, *frozen: PyTree
) -> Gradients:
    """The mean over the examples of a batch that are not there to fill it up."""
    total = sums(params, batch, key, *frozen)
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
