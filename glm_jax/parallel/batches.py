"""How batches are sharded over the mesh: specs, the rows of a process, global arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped

from glm_jax.parallel.layout import BATCH_AXES, LENGTH_AXES


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

    They are not always contiguous: in a mesh over a torus a host's chips may lie apart.
    """
    slices = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    bounds = [index[0].indices(batch_size)[:2] for index in slices if index is not None]
    return sorted({row for start, stop in bounds for row in range(start, stop)})


def to_devices(
    batches: Iterable[Mapping[str, np.ndarray]], mesh: Mesh, batch_size: int
) -> Iterator[dict[str, Shaped[Array, "B ..."]]]:
    """Global arrays from batches that hold the rows of this process, as in `process_rows`."""
    sharding = batch_sharding(mesh)
    for batch in batches:
        yield {
            name: jax.make_array_from_process_local_data(
                sharding, values, (batch_size, *values.shape[1:])
            )
            for name, values in batch.items()
        }


Batch = Mapping[str, Shaped[Array, "B ..."]]


def batch_specs(batch: Batch) -> dict[str, PartitionSpec]:
    """The sharding of a batch: by examples, and by positions where an array has them."""
    return {
        name: PartitionSpec(BATCH_AXES, *(None,) * (values.ndim - 2), LENGTH_AXES)
        if values.ndim > 1
        else PartitionSpec(BATCH_AXES)
        for name, values in batch.items()
    }


def micro_batches(batch: Batch, count: int) -> Mapping[str, Shaped[Array, "count rows ..."]]:
    """[B, ...] -> [count, B / count, ...], micro-batch j taking every count-th row from j on.

    Strided rows keep every device's rows on that device, where contiguous ones would move them.
    """

    def split(values):
        rows = values.reshape(values.shape[0] // count, count, *values.shape[1:])
        return jnp.swapaxes(rows, 0, 1)

    return jax.tree.map(split, dict(batch))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of every array of a batch as a step receives it: by examples only."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))
