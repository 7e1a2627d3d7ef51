"""Supervised cloze examples as rows of a batch: contexts with masks, and their answers.

They are mixed into pretraining where a model is to learn tasks in addition to filling in its blanks
(GLM paper, section 2.2). Part A is the context as generation prompts it; Part B are the answers,
from left to right.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from jaxtyping import Int32, Int64

from glm_jax.data.batches.batch import Batch, empty_supervised
from glm_jax.data.batches.cloze_lines import ClozeExample, read_examples
from glm_jax.errors import UsageError
from glm_jax.tokenizer import Tokenizer


def read_supervised(
    source: str, tokenizer: Tokenizer, *, sequence_length: int, seed: int
) -> SupervisedExamples:
    """The examples of a .jsonl file, or of a folder, glob pattern or URL of such files.

    See ``cloze_lines.read_examples`` for what a line is, how it is shortened and what is refused.

    Args:
      sequence_length: L, Part A and Part B together.
      seed: decides the order.
    """
    return SupervisedExamples(
        read_examples(source, tokenizer, sequence_length),
        sop=tokenizer.special["sop"],
        eop=tokenizer.special["eop"],
        sequence_length=sequence_length,
        seed=seed,
    )


class SupervisedExamples:
    """Examples in exact epochs: each comes once, in random order, before any comes again.

    A row is a pure function of the seed and its index. Examples are kept in memory, at 4 bytes a
    token and 16 to 24 an example.
    """

    def __init__(
        self,
        examples: Iterable[ClozeExample],
        *,
        sop: int,
        eop: int,
        sequence_length: int,
        seed: int,
    ) -> None:
        """Take examples, each of which fits into `sequence_length` positions.

        Raises:
          UsageError: there are none.
        """
        self._sop, self._eop, self._sequence_length = sop, eop, sequence_length
        self._ids, self._masks, self._answer_lengths = array("i"), array("i"), array("i")
        self._first_id, self._first_mask = array("q", [0]), array("q", [0])
        for example in examples:
            self._ids.extend(example.part_a)
            for answer in example.answers:
                self._ids.extend(answer)
            self._masks.extend(example.masks)
            self._answer_lengths.extend(map(len, example.answers))
            self._first_id.append(len(self._ids))
            self._first_mask.append(len(self._masks))
        self.num_examples = len(self._first_id) - 1
        if not self.num_examples:
            raise UsageError("there are no supervised examples")
        self._order = lru_cache(maxsize=2)(partial(_random_order, self.num_examples, seed))

    def rows(self, example: Int64[np.ndarray, "B"]) -> Batch:
        """Rows in the form of contract C1, with objective OTHER and loss on the answers only.

        Args:
          example: indices into the endless run of epochs, from 0.
        """
        batch = empty_supervised(len(example), self._sequence_length)
        epochs, indices = np.divmod(example, self.num_examples)
        for row, (epoch, index) in enumerate(zip(epochs.tolist(), indices.tolist(), strict=True)):
            packed = self._packed(int(self._order(epoch)[index]))
            self._write(packed, {name: values[row] for name, values in batch.items()})
            batch["prefix_length"][row] = len(packed.part_a)
        return batch

    def _packed(self, index: int) -> _Packed:
        ids = np.array(self._ids[self._first_id[index] : self._first_id[index + 1]], np.int32)
        blocks = slice(self._first_mask[index], self._first_mask[index + 1])
        lengths = np.array(self._answer_lengths[blocks], np.int32)
        prefix = len(ids) - int(lengths.sum())
        return _Packed(ids[:prefix], np.array(self._masks[blocks]), ids[prefix:], lengths)

    def _write(self, packed: _Packed, row: Batch) -> None:
        """Part A, then for every answer sop and the answer; their targets end with eop."""
        prefix = len(packed.part_a)
        size = packed.answer_lengths + 1
        end = np.cumsum(size)  # of every block, in Part B
        start = end - size
        block = np.repeat(np.arange(len(size)), size)
        index = np.arange(len(block))
        is_first, is_last = index == start[block], index + 1 == end[block]

        part_b = slice(prefix, prefix + len(block))
        tokens, targets = row["tokens"], row["targets"]
        tokens[:prefix] = targets[:prefix] = packed.part_a
        tokens[part_b][is_first], targets[part_b][is_last] = self._sop, self._eop
        tokens[part_b][~is_first] = targets[part_b][~is_last] = packed.answers
        row["loss_mask"][part_b] = 1
        row["position_ids"][0, :prefix] = np.arange(prefix)
        row["position_ids"][0, part_b] = packed.masks[block]
        row["position_ids"][1, part_b] = index - start[block] + 1


@dataclass(frozen=True)
class _Packed:
    """One example; the answers are concatenated."""

    part_a: Int32[np.ndarray, "prefix"]
    masks: Int32[np.ndarray, "blocks"]
    answers: Int32[np.ndarray, "answers"]
    answer_lengths: Int32[np.ndarray, "blocks"]


def _random_order(number: int, seed: int, epoch: int) -> Int64[np.ndarray, "number"]:
    """The permutation of an epoch."""
    # Raw numbers: numpy promises that they stay the same, which it doesn't of its permutations.
    numbers = np.random.Philox(np.random.SeedSequence([seed % 2**64, epoch])).random_raw(number)
    return np.argsort(numbers, kind="stable")
