"""Batches of the pretraining objective, on the texts of a task (priming, `block_lm_ratio`).

Source: reference-finetune.md, sections 4 and 11.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from jaxtyping import UInt64

from glm_jax.data.batches.batch import make_batch
from glm_jax.data.batches.rows import MIN_SEQUENCE_LENGTH
from glm_jax.data.blanks.config import SPAN_COST, BlankConfig
from glm_jax.data.blanks.objectives import OBJECTIVES, check_special, draw_objectives
from glm_jax.errors import UsageError
from glm_jax.finetune.encoded import bucket_of
from glm_jax.tasks import Example, Task, encode_priming_text
from glm_jax.tokenizer import Tokenizer

# What numbers are drawn for: which steps are priming steps, and which texts they have.
_DUE, _TEXTS = 1, 2


@dataclass(frozen=True)
class PrimingTexts:
    """The cloze questions of examples with their answers, as texts whose blanks are drawn.

    Attributes:
      task, examples, tokenizer: whose texts they are.
      sequence_length: L.
      patterns: ids of those that every example is asked by.
      multi_token: whether verbalizers may have several tokens.
      ratio: batches of this kind for each batch of the task, on average.
      blanks: how blanks are drawn.
      seed: decides steps, texts and blanks.
    """

    task: Task
    examples: Sequence[Example]
    tokenizer: Tokenizer
    sequence_length: int
    patterns: Sequence[int]
    multi_token: bool
    ratio: float
    blanks: BlankConfig
    seed: int

    def __post_init__(self) -> None:
        """Raises UsageError if a blank needs a token that the tokenizer lacks, or no text fits."""
        check_special(self.blanks, self.tokenizer.special)
        if self.sequence_length < MIN_SEQUENCE_LENGTH:
            raise UsageError(
                f"task.sequence_length is {self.sequence_length}; finetune.block_lm_ratio needs "
                f"at least {MIN_SEQUENCE_LENGTH} positions for texts and their blanks"
            )
        self.text(0)

    def is_due(self, step: int) -> bool:
        """Whether a step takes a batch of these in place of the task's: ratio / (1 + ratio)."""
        uniform = int(self._random(_DUE, step, 1)[0]) / 2**64
        return uniform < self.ratio / (1 + self.ratio)

    def text(self, number: int) -> list[int]:
        """The text of an example under a pattern, numbered as rows of the task are."""
        pattern, index = divmod(number, len(self.examples))
        return encode_priming_text(
            self.task,
            self.examples[index],
            self.tokenizer,
            sequence_length=self.sequence_length,
            pattern=self.patterns[pattern],
            multi_token=self.multi_token,
        )

    def batch(self, step: int, batch_size: int) -> dict[str, np.ndarray]:
        """Texts drawn with replacement, in the form of pretraining's batches.

        Returns:
          tokens, targets, loss_mask [B, L], position_ids [B, 2, L], prefix_length [B].
        """
        num_texts = len(self.examples) * len(self.patterns)
        drawn = self._random(_TEXTS, step, batch_size) % np.uint64(num_texts)
        texts = [self.text(int(number)) for number in drawn]
        lengths = np.asarray([len(text) for text in texts], np.int32)
        padded = np.zeros((batch_size, lengths.max()), np.int32)
        for row, text in zip(padded, texts, strict=True):
            row[: len(text)] = text
        # A number of its own for every row of the run, which its blanks are drawn by.
        example = tf.constant(step * batch_size + np.arange(batch_size), tf.int64)
        objective, single_span = draw_objectives(example, self.blanks, self.seed)
        made = make_batch(
            tf.constant(padded),
            tf.constant(lengths),
            example,
            objective,
            single_span,
            config=self.blanks,
            special=self.tokenizer.special,
            sentence_end=self.tokenizer.sentence_end,
            sequence_length=self._bucket(int(lengths.max())),
            seed=self.seed,
        )
        return {name: array.numpy() for name, array in made.items() if name != "objective"}

    def _bucket(self, length: int) -> int:
        """Positions that nearly always hold a text of `length` tokens and its blanks."""
        shares = self.blanks.proportions
        spans = max(
            OBJECTIVES[kind].expected_num_spans(self.blanks, length)
            for kind, share in shares.items()
            if share
        )
        return bucket_of(
            min(length + SPAN_COST * spans, self.sequence_length), self.sequence_length
        )

    def _random(self, purpose: int, step: int, count: int) -> UInt64[np.ndarray, "count"]:
        key = np.random.SeedSequence([self.seed, purpose, step])
        return np.random.Philox(key).random_raw(count)
