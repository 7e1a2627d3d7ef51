"""Encoded examples -> batches of static shapes, a pure function of (seed, epoch, index)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

Row = Mapping[str, np.ndarray]

# Sequences are cut to the shortest of these shares of the configured length that holds a batch.
BUCKETS = (0.25, 0.5, 0.75, 1.0)
# A bucket is a multiple of this, as tiles of accelerators are.
BUCKET_MULTIPLE = 32
# Axes of positions, which are cut to the bucket; the axis is the last one.
_BY_POSITION = ("tokens", "targets", "loss_mask", "position_ids", "prompt_ids")


@dataclass(frozen=True)
class EncodedExamples:
    """All examples of a split as arrays with a leading axis N.

    Attributes:
      arrays: of every example; those with choices have C of them, and `choice_mask`.
      used: positions that an example needs [N].
      sequence_length: L, that they are padded to.
    """

    arrays: Mapping[str, np.ndarray]
    used: np.ndarray
    sequence_length: int

    def __len__(self) -> int:
        return len(self.used)

    @property
    def buckets(self) -> tuple[int, ...]:
        """The lengths that batches have."""
        length, multiple = self.sequence_length, BUCKET_MULTIPLE
        lengths = {math.ceil(share * length / multiple) * multiple for share in BUCKETS}
        return tuple(sorted({min(bucket, length) for bucket in lengths}))

    def batch(self, indices: Int[np.ndarray, "b"], batch_size: int) -> dict[str, np.ndarray]:
        """The examples of these indices, cut to a bucket, and filled up with ones of weight 0.

        Returns:
          the arrays with a leading axis B, and `weight` [B].
        """
        filled = np.resize(indices, batch_size)
        length = next(b for b in self.buckets if b >= self.used[filled].max())
        batch = {
            name: array[filled][..., :length] if name in self.by_position else array[filled]
            for name, array in self.arrays.items()
        }
        batch["weight"] = (np.arange(batch_size) < len(indices)).astype(np.float32)
        return batch

    @property
    def by_position(self) -> frozenset[str]:
        """Names of the arrays whose last axis are the positions."""
        length = self.sequence_length
        return frozenset(
            name
            for name in _BY_POSITION
            if name in self.arrays and self.arrays[name].shape[-1] == length
        )

    def padding_share(self, batch_size: int, seed: int) -> float:
        """Share of the positions of an epoch's batches that no example uses."""
        total = needed = 0
        for indices in epoch_indices(len(self), batch_size, seed, 0):
            batch = self.batch(indices, batch_size)
            rows = self.used[indices]
            choices = 1 if batch["tokens"].ndim == 2 else batch["tokens"].shape[1]
            total += batch_size * batch["tokens"].shape[-1] * choices
            needed += int(rows.sum()) * choices
        return 1 - needed / total


def epoch_indices(
    num_examples: int, batch_size: int, seed: int, epoch: int
) -> Iterator[Int[np.ndarray, "b"]]:
    """The indices of each batch of an epoch, in an order of its own; the last may be shorter."""
    order = np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(num_examples)
    for start in range(0, num_examples, batch_size):
        yield order[start : start + batch_size]


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Batches of an epoch, a last partial one included."""
    return -(-num_examples // batch_size)


def training_batches(
    examples: EncodedExamples, batch_size: int, seed: int, first_step: int = 0
) -> Iterator[dict[str, np.ndarray]]:
    """Batches of one epoch after another, from any step on."""
    per_epoch = steps_per_epoch(len(examples), batch_size)
    epoch, skip = divmod(first_step, per_epoch)
    while True:
        for number, indices in enumerate(epoch_indices(len(examples), batch_size, seed, epoch)):
            if number >= skip:
                yield examples.batch(indices, batch_size)
        epoch, skip = epoch + 1, 0


def evaluation_batches(
    examples: EncodedExamples, batch_size: int
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """All examples once, those of like length together: (indices, batch)."""
    order = np.argsort(examples.used, kind="stable")
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        yield indices, examples.batch(indices, batch_size)
