"""Example index -> row of a batch: its text or a second stream's row, then its blanks."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Int64

from glm_jax.data.batch import make_batch
from glm_jax.data.mixture import MixedIn, add_rows, batch_form, deal, rows_of
from glm_jax.data.objectives import BlankConfig
from glm_jax.data.texts import PythonCalls, TextSource
from glm_jax.errors import UsageError

SHORTEST_SEQUENCE = 16


@dataclass(frozen=True)
class RowMaker:
    """Makes rows of batches; each is a pure function of its example index.

    `choose` reads, and `blank` computes: called one after the other they make the rows.

    Attributes:
      texts: what the examples are cut from.
      blanks: how blanks are cut.
      special: ids of the special tokens.
      sentence_end: by token id, whether it ends a sentence.
      sequence_length: L.
      seed: data seed.
      mixed_in: further examples, beside those of `texts`.
      calls: what goes wrong in reading is kept here.
    """

    texts: TextSource
    blanks: BlankConfig
    special: Mapping[str, int]
    sentence_end: Bool[np.ndarray, "V"]
    sequence_length: int
    seed: int
    mixed_in: MixedIn | None = None
    calls: PythonCalls = field(default_factory=PythonCalls)

    def __post_init__(self) -> None:
        """Raises UsageError if the settings do not fit together."""
        self.blanks.check_special(self.special)
        if self.sequence_length < SHORTEST_SEQUENCE:
            raise UsageError(
                f"the sequence length is {self.sequence_length}, "
                f"but must be at least {SHORTEST_SEQUENCE} to hold text and blanks."
            )

    def choose(self, example: Int64[tf.Tensor, "B"]) -> tuple:
        """The texts, the index of each in `texts`, and which rows they and the others are."""
        if self.mixed_in is None:
            return self.texts(example, self.calls), example
        stream, own = deal(example, [1 - self.mixed_in.share, self.mixed_in.share])
        of_texts = tf.gather(own, rows_of(0, stream))
        return self.texts(of_texts, self.calls), of_texts, stream, own

    def blank(self, chosen: tuple, example: tf.Tensor, *dealt: tf.Tensor) -> dict[str, tf.Tensor]:
        """A batch in the form of contract C1 from what was chosen."""
        text, length, objective, single_span = chosen
        made = make_batch(
            text, length, example, objective, single_span,
            config=self.blanks, special=self.special, sentence_end=self.sentence_end,
            sequence_length=self.sequence_length, seed=self.seed,
        )  # fmt: skip
        if self.mixed_in is not None:
            stream, own = dealt
            made = add_rows(
                made, self.mixed_in.source, stream, own, self.sequence_length, self.calls
            )
        return {
            name: tf.ensure_shape(made[name], [None, *shape])
            for name, (shape, _) in batch_form(self.sequence_length).items()
        }
