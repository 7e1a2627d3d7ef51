"""The loss and gradient of a step, over its whole batch or in micro-batches one after another."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int, Key, PyTree

from glm_jax.model.embeddings import unembed
from glm_jax.parallel.batches import Batch, batch_specs, micro_batches
from glm_jax.parallel.collectives import axis_size, scatter_to_tensor_parallel
from glm_jax.parallel.layout import DATA_AXES, TENSOR, mesh_axes
from glm_jax.parallel.mesh import MESH_AXES
from glm_jax.train.loss import (
    TARGET_ROWS,
    TargetRows,
    gather_targets,
    in_chunks,
    mask_normalizer,
    masked_loss_sum,
)


class LossSum(NamedTuple):
    """What a batch, or a part of it, adds to a step.

    Attributes:
      loss: sum of its masked losses, in nats.
      overflow: its targets that found no place and are missing in the sum.
    """

    loss: Float[Array, ""]
    overflow: Int[Array, ""]


class GradientSum(NamedTuple):
    """A loss sum with its gradient by every parameter."""

    loss: Float[Array, ""]
    overflow: Int[Array, ""]
    values: PyTree


class Gradients(NamedTuple):
    """What an update is made from.

    Attributes:
      loss: mean loss of the batch, in nats.
      overflow: targets that are missing in it.
      values: its gradient by every parameter.
      norms: the global norm before each clipping, in turn.
    """

    loss: Float[Array, ""]
    overflow: Int[Array, ""]
    values: PyTree
    norms: Float[Array, "C"]


LossFunction = Callable[[PyTree, Batch, Key[Array, ""]], LossSum]
SumFunction = Callable[[PyTree, Batch, Key[Array, ""]], GradientSum]
GradientFunction = Callable[[PyTree, Batch, Key[Array, ""]], Gradients]


def make_loss_function(
    model, *, target_fraction: float = 1.0, loss_chunks: int = 1
) -> LossFunction:
    """The sum of masked losses over one device's part of a batch, with dropout from the key.

    Args:
      model: the network.
      target_fraction: share of the positions that logits are computed for; targets beyond it
        overflow.
      loss_chunks: parts of these positions whose logits are computed one after another, and again
        for the backward pass.
    """

    def loss_function(params, batch, dropout_key):
        hidden = model.apply(
            {"params": params},
            batch["tokens"],
            batch["position_ids"],
            batch["prefix_length"],
            deterministic=False,
            rngs={"dropout": dropout_key},
            method="hidden_states",
        )
        rows, overflow = gather_targets(
            hidden,
            batch["targets"],
            batch["loss_mask"],
            target_fraction,
            multiple_of=math.lcm(TARGET_ROWS, axis_size(TENSOR)),
        )
        rows = TargetRows(*(scatter_to_tensor_parallel(values, 0) for values in rows))
        words = model.apply({"params": params}, method="embedding_table")
        return LossSum(_loss_of_rows(rows, words, loss_chunks), overflow)

    return loss_function


def _loss_of_rows(rows: TargetRows, words: Float[Array, "V D"], chunks: int) -> Float[Array, ""]:
    def loss(rows: TargetRows) -> Float[Array, ""]:
        return masked_loss_sum(unembed(rows.hidden, words), rows.targets, rows.loss_mask)

    if chunks == 1:
        return loss(rows)
    again = jax.checkpoint(loss, prevent_cse=False)
    return jnp.sum(jax.lax.map(again, in_chunks(rows, chunks)))


def sum_gradients(loss_function: LossFunction, accumulation_steps: int = 1) -> SumFunction:
    """The gradient of a loss sum on one device, by micro-batches where there are several."""

    def one(params, batch, key):
        def scalar(params):
            terms = loss_function(params, batch, key)
            return terms.loss, terms.overflow

        (loss, overflow), values = jax.value_and_grad(scalar, has_aux=True)(params)
        return GradientSum(loss, overflow, values)

    def many(params, batch, key):
        def add(sums, numbered):
            number, micro_batch = numbered
            terms = one(params, micro_batch, jax.random.fold_in(key, number))
            return jax.tree.map(jnp.add, sums, terms), None

        return jax.lax.scan(add, _zero(params), _numbered(batch, accumulation_steps))[0]

    return one if accumulation_steps == 1 else many


def over_mesh(sums: SumFunction, param_specs: PyTree, mesh: Mesh) -> SumFunction:
    """The same sums over a whole batch, each device adding up its own part of it.

    Gradients of gathered parameters come back summed and scattered; what a mesh axis that cuts the
    data does not cut is summed over it here.
    """

    def local(params, batch, key):
        terms = sums(params, batch, key)
        values = jax.tree.map(
            lambda value, spec: _psum(value, set(DATA_AXES).difference(*mesh_axes(spec)), mesh),
            terms.values,
            param_specs,
        )
        loss = _psum(terms.loss, set(MESH_AXES), mesh)
        overflow = _psum(terms.overflow, set(DATA_AXES), mesh)
        return loss, overflow, values

    def total(params, batch, key):
        whole = PartitionSpec()
        sums = jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(param_specs, batch_specs(batch), whole),
            out_specs=(whole, whole, param_specs),
            check_vma=False,
        )(params, batch, key)

        return GradientSum(*sums)

    return total


def _psum(value: Array, axes: set[str], mesh: Mesh) -> Array:
    axes = {axis for axis in axes if mesh.shape[axis] > 1}
    return jax.lax.psum(value, tuple(a for a in MESH_AXES if a in axes)) if axes else value


def global_mean(sums: SumFunction) -> GradientFunction:
    """The mean over all targets of the batch, however it is sharded or split into micro-batches.

    Losses and gradients are added up as sums and divided by the sum of the whole batch's mask, so
    that every target counts alike. The gradient is clipped once, by the optimizer.
    """

    def gradients(params, batch, key):
        terms = sums(params, batch, key)
        normalizer = mask_normalizer(batch["loss_mask"])
        loss, values = jax.tree.map(lambda total: total / normalizer, (terms.loss, terms.values))
        return Gradients(loss, terms.overflow, values, optax.global_norm(values)[None])

    return gradients


def clipped_means(sums: SumFunction, accumulation_steps: int, clip_norm: float) -> GradientFunction:
    """The original's accumulation: a mean of micro-batch means, clipped after every micro-batch.

    Each micro-batch adds the gradient of its own mean loss divided by `accumulation_steps`, and the
    sum so far is scaled down to `clip_norm` each time. So targets of micro-batches with few of them
    weigh more, and early micro-batches lose more to clipping than late ones: for comparisons with
    the original, not for better training.
    Source: original code, its training without DeepSpeed (which clips once).
    """

    def gradients(params, batch, key):
        def add(total, numbered):
            number, micro_batch = numbered
            terms = sums(params, micro_batch, jax.random.fold_in(key, number))
            weight = 1 / (mask_normalizer(micro_batch["loss_mask"]) * accumulation_steps)
            values = jax.tree.map(lambda old, new: old + new * weight, total.values, terms.values)
            norm = optax.global_norm(values)
            scale = clip_norm / jnp.maximum(norm, clip_norm)
            values = jax.tree.map(lambda value: value * scale, values)
            loss = total.loss + terms.loss * weight
            return GradientSum(loss, total.overflow + terms.overflow, values), norm

        total, norms = jax.lax.scan(add, _zero(params), _numbered(batch, accumulation_steps))
        return Gradients(*total, norms)

    return gradients


def _zero(params: PyTree) -> GradientSum:
    zeros = jax.tree.map(jnp.zeros_like, params)
    return GradientSum(jnp.zeros(()), jnp.zeros((), jnp.int32), zeros)


def _numbered(batch: Batch, count: int) -> tuple[Int[Array, "C"], Batch]:
    return jnp.arange(count), micro_batches(batch, count)
