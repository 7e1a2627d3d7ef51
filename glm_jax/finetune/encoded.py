"""Examples of a task -> all their rows as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from glm_jax.errors import UsageError
from glm_jax.finetune.batches import EncodedExamples
from glm_jax.tasks import Example, Task, encode_example
from glm_jax.tasks.sequence import collate_choices, stack
from glm_jax.tokenizer import Tokenizer


def encode_examples(
    task: Task,
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    *,
    sequence_length: int,
    options: Mapping[str, Any],
) -> EncodedExamples:
    """Encodes all examples; those with choices get as many as the example with most of them.

    Args:
      task: of the examples.
      examples: at least one.
      tokenizer: of the model.
      sequence_length: L.
      options: other arguments of `encode_example`.

    Raises:
      UsageError: there are no examples, or one can't be encoded.
    """
    if not examples:
        raise UsageError(f"a split of task {task.name} has no examples")
    rows = [
        encode_example(task, example, tokenizer, sequence_length=sequence_length, **options)
        for example in examples
    ]
    if any("prompt_positions" in row and row["prompt_positions"].size for row in rows):
        rows = [_with_prompt_ids(row) for row in rows]
    rows = [{k: v for k, v in row.items() if k != "prompt_positions"} for row in rows]
    used = np.asarray([_positions_used(row) for row in rows])
    by_choice = rows[0]["tokens"].ndim == 2
    arrays = collate_choices(rows) if by_choice else stack(rows)
    return EncodedExamples(arrays, used, sequence_length)


def _positions_used(row: Mapping[str, np.ndarray]) -> int:
    """Positions up to the last one that counts."""
    last = int(row["prefix_length"].max())
    if "loss_mask" in row:
        columns = row["loss_mask"].reshape(-1, row["loss_mask"].shape[-1]).any(axis=0)
        last = max(last, int(np.flatnonzero(columns)[-1]) + 1)
    return min(last + 1, row["tokens"].shape[-1])


def _with_prompt_ids(row: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The row with the number of the prompt at every position, from 1, or 0."""
    ids = np.zeros(row["tokens"].shape, np.int32)
    positions = row["prompt_positions"]
    numbers = np.broadcast_to(np.arange(1, positions.shape[-1] + 1), positions.shape)
    np.put_along_axis(ids, positions, numbers, axis=-1)
    return {**row, "prompt_ids": ids}
