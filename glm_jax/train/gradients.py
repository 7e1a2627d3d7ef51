"""The gradient of a step, from the mean over its batch down to the loss of one device's rows.

Losses and gradients are sums until the very end, so that micro-batches and devices add up exactly.
"""

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
      overflow: its targets that exceed the loss capacity and are missing in the sum.
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
      norms: the global norm before each clipping, in order.
    """

    loss: Float[Array, ""]
    overflow: Int[Array, ""]
    values: PyTree
    norms: Float[Array, "C"]


# Of (parameters, batch, dropout key), and of frozen parameters where a network has some.
LossFunction = Callable[..., LossSum]
SumFunction = Callable[..., GradientSum]
GradientFunction = Callable[..., Gradients]


def mean_gradients(
    sums: SumFunction, params: PyTree, batch: Batch, dropout_key: Key[Array, ""], *frozen: PyTree
) -> Gradients:
    """The mean over all targets of the batch, however it is sharded or split into micro-batches.

    The sums are divided by the sum of the global batch's mask, so that every target counts alike.
    The optimizer clips the gradient, once.
    """
    total = sums(params, batch, dropout_key, *frozen)
    normalizer = mask_normalizer(batch["loss_mask"])
    loss, values = jax.tree.map(lambda value: value / normalizer, (total.loss, total.values))
    return Gradients(loss, total.overflow, values, optax.global_norm(values)[None])


def sums_over_mesh(
    sums: SumFunction,
    mesh: Mesh,
    param_specs: PyTree,
    params: PyTree,
    batch: Batch,
    dropout_key: Key[Array, ""],
    *frozen: PyTree,
    frozen_specs: tuple[PyTree, ...] = (),
) -> GradientSum:
    """The sums over a global batch, each device computing `sums` of its own part.

    Gradients of gathered parameters come back summed and scattered; they are summed here over the
    mesh axes that shard the data and not the parameter.

    Args:
      sums: of one device's part.
      mesh: of the devices.
      param_specs: how `params` are sharded.
      params, batch, dropout_key, frozen: the arguments of `sums`.
      frozen_specs: how each of `frozen` is sharded.
    """

    def local_sums(params, batch, dropout_key, *frozen):
        loss, overflow, values = sums(params, batch, dropout_key, *frozen)
        values = jax.tree.map(
            lambda value, spec: _psum(value, set(DATA_AXES).difference(*mesh_axes(spec)), mesh),
            values,
            param_specs,
        )
        return _psum(loss, set(MESH_AXES), mesh), _psum(overflow, set(DATA_AXES), mesh), values

    replicated = PartitionSpec()
    sharded_sums = jax.shard_map(
        local_sums,
        mesh=mesh,
        in_specs=(param_specs, batch_specs(batch), replicated, *frozen_specs),
        out_specs=(replicated, replicated, param_specs),
        check_vma=False,
    )
    return GradientSum(*sharded_sums(params, batch, dropout_key, *frozen))


def gradient_sums(
    loss_of: LossFunction,
    params: PyTree,
    batch: Batch,
    dropout_key: Key[Array, ""],
    *frozen: PyTree,
    accumulation_steps: int = 1,
) -> GradientSum:
    """The gradient of a loss sum by `params` on one device, by micro-batches where there are some.

    Nothing is computed for a gradient by `frozen` parameters, which `loss_of` takes last.
    """

    def of_batch(batch, key):
        with_gradient = jax.value_and_grad(
            lambda params: loss_of(params, batch, key, *frozen), has_aux=True
        )
        (loss, overflow), values = with_gradient(params)
        return GradientSum(loss, overflow, values)

    if accumulation_steps == 1:
        return of_batch(batch, dropout_key)

    def add(sums, numbered):
        number, micro_batch = numbered
        terms = of_batch(micro_batch, jax.random.fold_in(dropout_key, number))
        return jax.tree.map(jnp.add, sums, terms), None

    numbered = (jnp.arange(accumulation_steps), micro_batches(batch, accumulation_steps))
    return jax.lax.scan(add, zero_sums(params), numbered)[0]


def zero_sums(params: PyTree) -> GradientSum:
    """What sums over micro-batches start from."""
    zeros = jax.tree.map(jnp.zeros_like, params)
    return GradientSum(jnp.zeros(()), jnp.zeros((), jnp.int32), zeros)


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
        embedding_table = model.apply({"params": params}, method="embedding_table")
        return LossSum(_loss_of_rows(rows, embedding_table, loss_chunks), overflow)

    return loss_function


def _loss_of_rows(
    rows: TargetRows, embedding_table: Float[Array, "V D"], chunks: int
) -> Float[Array, ""]:
    def loss(rows: TargetRows) -> Float[Array, ""]:
        return masked_loss_sum(unembed(rows.hidden, embedding_table), rows.targets, rows.loss_mask)

    if chunks == 1:
        return loss(rows)
    again = jax.checkpoint(loss, prevent_cse=False)
    return jnp.sum(jax.lax.map(again, in_chunks(rows, chunks)))


def _psum(value: Array, axes: set[str], mesh: Mesh) -> Array:
    axes = {axis for axis in axes if mesh.shape[axis] > 1}
    return jax.lax.psum(value, tuple(a for a in MESH_AXES if a in axes)) if axes else value
