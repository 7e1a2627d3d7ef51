"""The examples of a split as rows of arrays, encoded when they are first needed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np
from jaxtyping import Int

from glm_jax.errors import UsageError
from glm_jax.finetune.survey import Survey, survey_split
from glm_jax.tasks import Example, Task, encode_example
from glm_jax.tasks.sequence import collate_choices, stack
from glm_jax.tokenizer import Tokenizer

Row = Mapping[str, np.ndarray]

# Sequences are shortened to the shortest of these shares of the configured length that holds a
# batch.
BUCKETS = (0.25, 0.5, 0.75, 1.0)
# A bucket is a multiple of this, as tiles of accelerators are.
BUCKET_MULTIPLE = 32
# Bytes of the newest rows, which are kept; older ones are encoded again when they are needed.
MAX_KEPT_BYTES = 2**30
# Tokens of a row in addition to its texts: ENC, eos, sop and eop.
_EXTRA_TOKENS = 4


def length_buckets(sequence_length: int) -> tuple[int, ...]:
    """The lengths that batches have, in order."""
    multiple = BUCKET_MULTIPLE
    lengths = {math.ceil(share * sequence_length / multiple) * multiple for share in BUCKETS}
    return tuple(sorted({min(bucket, sequence_length) for bucket in lengths}))


def bucket_of(length: int, sequence_length: int) -> int:
    """The shortest bucket that holds `length` positions."""
    return next(bucket for bucket in length_buckets(sequence_length) if bucket >= length)


class EncodedExamples:
    """Rows of all examples of a split; each is a pure function of its index.

    With several patterns there are R = patterns x examples rows, and row i asks example
    i % examples by pattern i // examples.
    """

    def __init__(
        self,
        task: Task,
        examples: Sequence[Example],
        tokenizer: Tokenizer,
        survey: Survey,
        *,
        sequence_length: int,
        patterns: Sequence[int],
        options: Mapping[str, Any],
        by_position: frozenset[str],
    ) -> None:
        """Takes the examples without encoding them; see `encode_examples`."""
        self._task, self._examples, self._tokenizer = task, examples, tokenizer
        self._survey, self._patterns, self._options = survey, patterns, options
        self._by_position = by_position
        self._rows: dict[int, Row] = {}
        self._lengths: dict[int, int] = {}
        self._kept_bytes, self._lock = 0, Lock()
        self.sequence_length = sequence_length

    def __len__(self) -> int:
        return len(self._examples) * len(self._patterns)

    def of_epoch(self, _epoch: int) -> EncodedExamples:
        """The rows of an epoch, from 0: the same in all."""
        return self

    @property
    def num_examples(self) -> int:
        """Examples, each of which has a row for every pattern."""
        return len(self._examples)

    @property
    def sizes(self) -> Int[np.ndarray, "R"]:
        """Bytes of the text of every row, by which rows of like length are found."""
        return self._survey.sizes

    @property
    def num_choices(self) -> int:
        """C, of every batch; 0 where rows have no axis of choices."""
        return self._survey.num_choices

    @property
    def answer_length(self) -> int:
        """Tokens of the longest scored answer, 0 where none is scored."""
        return self._survey.answer_length

    @property
    def num_kept(self) -> int:
        """Rows in memory."""
        return len(self._rows)

    def row(self, index: int) -> Row:
        """One row, up to the last position that counts."""
        row = self._rows.get(index)
        if row is None:
            row = self._encode(index)
            self._lengths[index] = row["tokens"].shape[-1]
            with self._lock:
                self._keep(index, row)
        return row

    def length(self, index: int) -> int:
        """Positions of a row up to the last one that counts."""
        if index not in self._lengths:
            self.row(index)
        return self._lengths[index]

    def _keep(self, index: int, row: Row) -> None:
        if index in self._rows:  # another thread was as fast
            return
        self._rows[index] = row
        self._kept_bytes += _num_bytes(row)
        while self._kept_bytes > MAX_KEPT_BYTES and len(self._rows) > 1:
            oldest = next(iter(self._rows))
            self._kept_bytes -= _num_bytes(self._rows.pop(oldest))

    def _encode(self, index: int) -> Row:
        pattern, number = divmod(index, len(self._examples))
        row = encode_example(
            self._task,
            self._examples[number],
            self._tokenizer,
            sequence_length=self.sequence_length,
            pattern=self._patterns[pattern],
            **self._options,
        )
        positions = row.pop("prompt_positions", np.zeros(0))
        if positions.size:
            row["prompt_ids"] = _prompt_ids(row["tokens"].shape, positions)
        used = _positions_used(row)
        # Copies, since views would keep the arrays of the full length.
        return {
            name: array[..., :used].copy() if name in self._by_position else array
            for name, array in row.items()
        }

    def batch(self, indices: Int[np.ndarray, "b"], batch_size: int) -> dict[str, np.ndarray]:
        """Rows of like length: padded to a bucket, and filled up with rows of weight 0.

        Returns:
          The arrays of `encode_example` with a leading axis B, and `prompt_ids` in place of
          `prompt_positions`: the number of the prompt at every position, from 1, or 0. Rows with
          choices have C of them and `choice_mask` [B, C]; those with segments `segment_mask`.
          `weight` [B] is 0 for rows that only fill up the batch. Rows that are trained on as
          language models are have no `label` and no `weight`, but a loss mask that is 0.
        """
        rows = [self.row(int(index)) for index in np.resize(indices, batch_size)]
        length = bucket_of(max(row["tokens"].shape[-1] for row in rows), self.sequence_length)
        batch = self._collate([self._padded(row, length) for row in rows])
        weight = (np.arange(batch_size) < len(indices)).astype(np.float32)
        if self.answer_length and not self.num_choices:
            del batch["label"]
            return batch | {"loss_mask": batch["loss_mask"] * weight[:, None]}
        return batch | {"weight": weight}

    def _padded(self, row: Row, length: int) -> dict[str, np.ndarray]:
        """The row with eos and zeros up to a length."""
        eos = self._tokenizer.special["eos"]

        def padded(name: str, array: np.ndarray) -> np.ndarray:
            if name not in self._by_position:
                return array
            fill = eos if name == "tokens" else 0
            full = np.full((*array.shape[:-1], length), fill, array.dtype)
            full[..., : array.shape[-1]] = array
            return full

        return {name: padded(name, array) for name, array in row.items()}

    def _collate(self, rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        if not self.num_choices:
            return stack(rows)
        if not self._survey.num_segments:
            return collate_choices(rows, self.num_choices)
        batch = collate_choices(rows, self._survey.num_segments)
        batch["segment_mask"] = batch["choice_mask"]
        last = batch["segment_ids"].max(axis=1)
        batch["choice_mask"] = (np.arange(self.num_choices) <= last[:, None]).astype(np.float32)
        return batch

    def check(self) -> None:
        """Encodes the rows whose parts may be too long, and one of each pattern.

        Raises:
          UsageError: a row can't be encoded.
        """
        room = self.sequence_length - _EXTRA_TOKENS
        first = range(0, len(self), self.num_examples)
        for index in sorted({*first, *np.flatnonzero(self._survey.unshortenable > room).tolist()}):
            self.row(index)


def encode_examples(
    task: Task,
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    *,
    sequence_length: int,
    patterns: Sequence[int] = (0,),
    options: Mapping[str, Any],
) -> EncodedExamples:
    """The rows of all examples, checked, though only those that may be too long are encoded here.

    Args:
      task: of the examples.
      examples: at least one.
      tokenizer: of the model.
      sequence_length: L.
      patterns: ids of those that every example is asked by.
      options: other arguments of `encode_example`.

    Raises:
      UsageError: there are no examples, or one can't be encoded.
    """
    if not examples:
        raise UsageError(f"a split of task {task.name} has no examples")
    for example in examples:
        task.label_index(example)
    cloze = options.get("cloze", True)
    survey = survey_split(task, examples, tokenizer, sequence_length, patterns, options)
    by_position = {"tokens", "loss_mask", "position_ids", "prompt_ids"}
    if survey.answer_length:
        by_position |= {"targets"}
    encoded = EncodedExamples(
        task,
        examples,
        tokenizer,
        survey,
        sequence_length=sequence_length,
        patterns=patterns if cloze else (0,),
        options=options,
        by_position=frozenset(by_position),
    )
    encoded.check()
    return encoded


def _num_bytes(row: Row) -> int:
    return sum(array.nbytes for array in row.values())


def _positions_used(row: Row) -> int:
    """Positions up to the last one that counts."""
    last = int(row["prefix_length"].max())
    if "loss_mask" in row:
        columns = row["loss_mask"].reshape(-1, row["loss_mask"].shape[-1]).any(axis=0)
        last = max(last, int(np.flatnonzero(columns)[-1]) + 1)
    return min(last + 1, row["tokens"].shape[-1])


def _prompt_ids(
    shape: tuple[int, ...], positions: Int[np.ndarray, "*C P"]
) -> Int[np.ndarray, "*C L"]:
    """The number of the prompt at every position, from 1, or 0."""
    ids = np.zeros(shape, np.int32)
    numbers = np.broadcast_to(np.arange(1, positions.shape[-1] + 1), positions.shape)
    np.put_along_axis(ids, positions, numbers, axis=-1)
    return ids
