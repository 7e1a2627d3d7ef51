"""Tasks as rows of pretraining batches: a task by weight, then one of its examples, uniformly.

Source: the original's pretraining on several tasks (reference-finetune.md, section 11).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from glm_jax.data.batches.batch import Batch, empty_supervised
from glm_jax.errors import UsageError
from glm_jax.tasks import Example, Task, find_task, read_examples
from glm_jax.tasks.right_answer import encode_right_answer, fits_surely
from glm_jax.tasks.tokens import single_tokens
from glm_jax.tokenizer import Tokenizer

# A task's weight is its size, but no more than this, to a power that favours small tasks.
MAX_SIZE, SIZE_POWER = 200_000, 0.8
# Separates these draws from others of the same seed.
_STREAM = 0x7A5C5


@dataclass(frozen=True)
class TaskItems:
    """The training examples of a task under each of its patterns.

    Attributes:
      task: of the examples.
      examples: with labels.
      all_tokens: for each pattern, whether its verbalizers are predicted with all their tokens,
        since one of them is several.
    """

    task: Task
    examples: Sequence[Example]
    all_tokens: Sequence[bool]

    def __len__(self) -> int:
        return len(self.examples) * len(self.all_tokens)

    def item(self, index: int) -> tuple[Example, int]:
        """The example and the pattern of an index: all examples under pattern 0 come first."""
        pattern, number = divmod(index, len(self.examples))
        return self.examples[number], pattern


class TaskMixture:
    """Rows of tasks, drawn with replacement; each is a pure function of the seed and its index.

    Only the texts are in memory: a row is tokenized when it is drawn.
    """

    def __init__(
        self,
        datasets: Sequence[TaskItems],
        tokenizer: Tokenizer,
        *,
        sequence_length: int,
        seed: int,
        weights: Sequence[float] | None = None,
        block_positions: bool = True,
    ) -> None:
        """Take tasks.

        Args:
          datasets: at least one.
          tokenizer: of the model.
          sequence_length: L.
          seed: decides what is drawn.
          weights: one positive number for each; by default that of `mixture_weights`.
          block_positions: whether the model has block positions.
        """
        self._datasets, self._tokenizer = datasets, tokenizer
        self._length, self._block_positions = sequence_length, block_positions
        chosen = mixture_weights([len(items) for items in datasets]) if weights is None else weights
        shares = np.asarray(chosen, np.float64) / np.sum(chosen)
        self._ends = np.cumsum(shares)[:-1]
        seeds = np.random.SeedSequence([seed % 2**64, _STREAM])
        self._key = seeds.generate_state(2, np.uint64)

    def draw(self, example: int) -> tuple[int, int]:
        """The number of a task, and the index of one of its items."""
        counter = np.asarray([example, 0, 0, 0], np.uint64)
        # Raw numbers: numpy promises that they stay the same.
        first, second = np.random.Philox(counter=counter, key=self._key).random_raw(2).tolist()
        uniform = (first >> 11) * 2.0**-53
        number = int(np.searchsorted(self._ends, uniform, side="right"))
        return number, second * len(self._datasets[number]) >> 64

    def rows(self, example: Int64[np.ndarray, "B"]) -> Batch:
        """Rows in the form of contract C1, with objective OTHER.

        Args:
          example: indices into the endless run of draws, from 0.
        """
        length = self._length
        batch = empty_supervised(len(example), length)
        for row, index in enumerate(example.tolist()):
            dataset, item = self.draw(index)
            encoded = _encode(
                self._datasets[dataset], item, self._tokenizer, length, self._block_positions
            )
            for name, values in encoded.items():
                batch[name][row] = values
        return batch


def mixture_weights(sizes: Sequence[int]) -> Float64[np.ndarray, "tasks"]:
    """The weight in which each task is drawn: min(size, 200,000)^0.8."""
    return np.minimum(np.asarray(sizes, np.float64), MAX_SIZE) ** SIZE_POWER


def open_tasks(
    folders: Mapping[str, str],
    weights: Mapping[str, float],
    tokenizer: Tokenizer,
    *,
    sequence_length: int,
    seed: int,
    block_positions: bool = True,
) -> TaskMixture:
    """Reads the training splits of tasks and makes sure that every row can be made.

    Args:
      folders: by the names of tasks, the data of each.
      weights: of every task, or of none.
      tokenizer: of the model.
      sequence_length: L.
      seed: decides what is drawn.
      block_positions: whether the model has block positions.

    Raises:
      UsageError: a task's data can't be read, or an example has no label or does not fit.
    """
    datasets = [
        _open(find_task(name), folder, tokenizer, sequence_length)
        for name, folder in folders.items()
    ]
    return TaskMixture(
        datasets,
        tokenizer,
        sequence_length=sequence_length,
        seed=seed,
        weights=[weights[name] for name in folders] if weights else None,
        block_positions=block_positions,
    )


def _open(task: Task, folder: str, tokenizer: Tokenizer, sequence_length: int) -> TaskItems:
    if task.pattern is None:
        raise UsageError(f"task {task.name} has no patterns; it is for classification")
    examples = read_examples(task, folder, "train")
    for example in examples:
        if example.label is None:
            raise UsageError(f"example {example.guid} of task {task.name} has no label")
    patterns = range(task.ensemble or task.num_patterns)
    all_tokens = [_has_long_words(task, pattern, tokenizer) for pattern in patterns]
    items = TaskItems(task, examples, all_tokens)
    for index in range(len(items)):
        example, pattern = items.item(index)
        if not fits_surely(task, example, pattern, sequence_length):
            _encode(items, index, tokenizer, sequence_length, True)
    return items


def _has_long_words(task: Task, pattern: int, tokenizer: Tokenizer) -> bool:
    if task.verbalizers is None:
        return False
    try:
        single_tokens(task.verbalizers(pattern), task.labels, tokenizer.encode_text)
    except UsageError:
        return True
    return False


def _encode(
    items: TaskItems, index: int, tokenizer: Tokenizer, sequence_length: int, block_positions: bool
) -> Mapping[str, np.ndarray]:
    example, pattern = items.item(index)
    return encode_right_answer(
        items.task,
        example,
        tokenizer,
        sequence_length=sequence_length,
        pattern=pattern,
        all_tokens=items.all_tokens[pattern],
        block_positions=block_positions,
    )
