"""Rows -> the log-probability of every token that they score."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, PyTree

from glm_jax.model import GLM
from glm_jax.model.embeddings import unembed
from glm_jax.parallel.batches import Batch, batch_sharding, batch_specs, process_rows, to_devices
from glm_jax.parallel.collectives import gather_from_tensor_parallel, scatter_to_tensor_parallel
from glm_jax.parallel.layout import BATCH_AXES
from glm_jax.tasks.sequence import Row

# Rows are shortened to a multiple of this that holds all of a batch, and so are scored positions.
_MULTIPLE = 64


class TokenScores(NamedTuple):
    """What the network gives the scored tokens of a row, in their order.

    Attributes:
      log_probs: in nats.
      right: whether no other token is more probable.
    """

    log_probs: Float[np.ndarray, "n"]
    right: Bool[np.ndarray, "n"]


def score_rows(
    model: GLM, params: PyTree, rows: Sequence[Row], mesh: Mesh, batch_size: int
) -> list[TokenScores]:
    """The scores of all rows; all processes take part, and all get them.

    Rows of like lengths share a batch, whose shapes are a few.

    Args:
      model: the network.
      params: its parameters, on the mesh.
      rows: tokens, targets, loss_mask [L], position_ids [2, L], prefix_length [].
      mesh: the devices.
      batch_size: rows at a time, of all devices.
    """
    score = make_token_scorer(model, params, mesh)
    local = process_rows(mesh, batch_size)
    found: list[TokenScores | None] = [None] * len(rows)
    for indices, batch in scoring_batches(rows, batch_size):
        mine = {name: values[local] for name, values in batch.items()}
        (on_devices,) = to_devices([mine], mesh, batch_size)
        log_probs, right = jax.device_get(score(params, on_devices))
        for index, row_log_probs, row_right in zip(indices, log_probs, right, strict=False):
            count = int(rows[index]["loss_mask"].sum())
            found[index] = TokenScores(row_log_probs[:count], row_right[:count])
    return [scores for scores in found if scores is not None]


def scoring_batches(
    rows: Sequence[Row], batch_size: int
) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
    """(indices, batch) of all rows; the last batch is filled up with rows that are there already.

    Yields:
      tokens, position_ids and prefix_length of the rows, and the indices and targets of the scored
      positions [B, n].
    """
    scored = [np.flatnonzero(row["loss_mask"]) for row in rows]
    lengths = [
        max(int(row["prefix_length"]), int(positions[-1]) + 1)
        for row, positions in zip(rows, scored, strict=True)
    ]
    order = sorted(range(len(rows)), key=lambda n: (len(scored[n]), lengths[n]))
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        filled = [indices[n % len(indices)] for n in range(batch_size)]
        length = _rounded_up(max(lengths[n] for n in filled))
        count = _rounded_up(max(len(scored[n]) for n in filled))
        positions = np.stack([np.resize(scored[n], count) for n in filled])
        targets = np.stack([rows[n]["targets"] for n in filled])
        batch = {
            "tokens": _cut([rows[n]["tokens"] for n in filled], length),
            "position_ids": _cut([rows[n]["position_ids"] for n in filled], length),
            "prefix_length": np.stack([rows[n]["prefix_length"] for n in filled]),
            "scored_positions": positions.astype(np.int32),
            "scored_targets": np.take_along_axis(targets, positions, axis=1),
        }
        yield indices, batch


def make_token_scorer(
    model: GLM, params: PyTree, mesh: Mesh
) -> Callable[[PyTree, Batch], tuple[Float[Array, "B n"], Bool[Array, "B n"]]]:
    """(params, batch) -> the log-probabilities of the scored targets, and whether each is the most
    probable; compiled once for each shape of batches.

    Args:
      model: the network.
      params: its parameters, on the mesh.
      mesh: the devices.
    """
    specs = jax.tree.map(lambda leaf: leaf.sharding.spec, params)
    sharded = model.clone(param_specs=specs)

    def local(params: PyTree, batch: Mapping[str, Array]) -> tuple[Array, Array]:
        variables = {"params": params}
        inputs = (batch["tokens"], batch["position_ids"], batch["prefix_length"])
        hidden: Any = sharded.apply(variables, *inputs, method="hidden_states")
        index = batch["scored_positions"]
        hidden = jnp.take_along_axis(hidden, index[..., None], axis=1)
        hidden, targets = (
            scatter_to_tensor_parallel(values, 0) for values in (hidden, batch["scored_targets"])
        )
        table: Any = sharded.apply(variables, method="embedding_table")

        def of_row(row: tuple[Float[Array, "n D"], Int[Array, "n"]]) -> tuple[Array, Array]:
            logits = unembed(row[0], table)
            log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
            chosen = jnp.take_along_axis(log_probs, row[1][:, None], axis=-1)[:, 0]
            return chosen, jnp.argmax(logits, axis=-1) == row[1]

        # One row at a time: the logits of a batch would be larger than the network.
        log_probs, right = jax.lax.map(of_row, (hidden, targets))
        return gather_from_tensor_parallel(log_probs, 0), gather_from_tensor_parallel(right, 0)

    def over_mesh(params: PyTree, batch: Batch):
        specs_of_rows = PartitionSpec(BATCH_AXES)
        return jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(specs, batch_specs(batch)),
            out_specs=(specs_of_rows, specs_of_rows),
            check_vma=False,
        )(params, batch)

    shardings = jax.tree.map(lambda leaf: leaf.sharding, params)
    replicated = NamedSharding(mesh, PartitionSpec())
    return jax.jit(
        over_mesh, in_shardings=(shardings, batch_sharding(mesh)), out_shardings=replicated
    )


def _rounded_up(count: int) -> int:
    return -(-count // _MULTIPLE) * _MULTIPLE


def _cut(arrays: Sequence[np.ndarray], length: int) -> np.ndarray:
    """Arrays whose last axis is shortened, or filled up with zeros, to `length`."""
    stacked = np.stack(arrays)[..., :length]
    missing = length - stacked.shape[-1]
    return np.pad(stacked, [(0, 0)] * (stacked.ndim - 1) + [(0, missing)])
