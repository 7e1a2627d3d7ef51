"""The examples of a split as rows to train on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache

import numpy as np
from jaxtyping import Int

from glm_jax.errors import UsageError
from glm_jax.finetune.encoded import EncodedExamples, bucket_of
from glm_jax.seq2seq.encode import encode_pair
from glm_jax.seq2seq.rows import RowLayout
from glm_jax.seq2seq.task import Seq2SeqTask
from glm_jax.tasks.example import Example
from glm_jax.tasks.sequence import Row, stack
from glm_jax.tokenizer import Tokenizer

# The newest rows, which are kept; older ones are encoded again when they are needed.
MAX_KEPT_ROWS = 2**15


# Draws of an example until one of its blanks is in the source.
_MAX_DRAWS = 16


class EncodedPairs(EncodedExamples):
    """Rows of sources and targets to learn; each is a pure function of its index.

    Of tasks with random blanks, every epoch has rows of its own, see `of_epoch`.
    """

    def __init__(
        self,
        task: Seq2SeqTask,
        examples: Sequence[Example],
        tokenizer: Tokenizer,
        layout: RowLayout,
        *,
        key: tuple[int, ...] | None = None,
    ) -> None:
        """Takes the examples without encoding them; see `encode_pairs`.

        Args:
          task: of the examples.
          examples: at least one, with targets.
          tokenizer: of the model.
          layout: of the rows.
          key: with an example's index decides its random blanks; None for those that it has.
        """
        self._pair, self._key = (task, examples, tokenizer, layout), key
        self.sequence_length = layout.source_length + layout.target_length
        self._kept = lru_cache(maxsize=MAX_KEPT_ROWS)(self._encode)

    def of_epoch(self, epoch: int) -> EncodedPairs:
        """The rows of an epoch: with blanks of its own, if the task draws them."""
        if self._pair[0].draw is None or self._key is None:
            return self
        return EncodedPairs(*self._pair, key=(*self._key, epoch))

    def check(self) -> None:
        """Encodes the rows that may not fit.

        Raises:
          UsageError: an example has no target, or no blank fits into its source.
        """
        task, examples, *_ = self._pair
        for index, example in enumerate(examples):
            # A text alone is shortened to fit; what else there is may be too long.
            if example.meta or task.several_blanks:
                self.row(index)
            elif example.text_b is None:
                raise UsageError(f"example {example.guid} of task {task.name} has no target")

    def __len__(self) -> int:
        return len(self._pair[1])

    @property
    def num_choices(self) -> int:
        """There are none."""
        return 0

    def row(self, index: int) -> Row:
        """One row, up to the last position that counts."""
        return self._kept(index)

    def length(self, index: int) -> int:
        """Positions of a row up to the last one that counts."""
        return self.row(index)["tokens"].shape[-1]

    def _encode(self, index: int) -> Row:
        row = self._drawn(index)
        used = int(np.flatnonzero(row["loss_mask"])[-1]) + 1
        return {
            name: array[..., :used].copy() if array.ndim else array for name, array in row.items()
        }

    def _drawn(self, index: int) -> Row:
        """The row with the blanks of its epoch, or, where none of them fits, with its own."""
        task, examples, tokenizer, layout = self._pair
        if task.draw is not None and self._key is not None:
            random = np.random.default_rng((*self._key, index))
            for _ in range(_MAX_DRAWS):
                drawn = task.draw(examples[index], random)
                with suppress(UsageError):
                    return encode_pair(task, drawn, tokenizer, layout)
        return encode_pair(task, examples[index], tokenizer, layout)

    def batch(self, indices: Int[np.ndarray, "b"], batch_size: int) -> dict[str, np.ndarray]:
        """Rows of like length: padded to a bucket, and filled up with rows without a loss.

        Returns:
          The arrays of `one_blank_row` with a leading axis B.
        """
        rows = [self.row(int(index)) for index in np.resize(indices, batch_size)]
        length = bucket_of(max(row["tokens"].shape[-1] for row in rows), self.sequence_length)
        batch = stack(
            [{name: _padded(array, length) for name, array in row.items()} for row in rows]
        )
        is_real = (np.arange(batch_size) < len(indices)).astype(np.float32)
        return batch | {"loss_mask": batch["loss_mask"] * is_real[:, None]}


def _padded(array: np.ndarray, length: int) -> np.ndarray:
    """The array with zeros up to a length of its last axis; nothing attends to them."""
    if not array.ndim:
        return array
    missing = length - array.shape[-1]
    return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, missing)])


def encode_pairs(
    task: Seq2SeqTask,
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    layout: RowLayout,
    seed: int,
) -> EncodedPairs:
    """The rows of all examples, checked.

    Args:
      task, examples, tokenizer, layout: as of `EncodedPairs`.
      seed: decides, with the epoch, random blanks.

    Raises:
      UsageError: an example has no target, or no blank fits into its source.
    """
    pairs = EncodedPairs(task, examples, tokenizer, layout)
    pairs.check()  # and keeps what it encodes
    if task.draw is None:
        return pairs
    return EncodedPairs(task, examples, tokenizer, layout, key=(seed,))
