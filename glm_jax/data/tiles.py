"""A stream cut into windows that follow each other, each sized for the objective it is used for.

The windows repeat a fixed chapter of slots. So the place of any window, and how many there are, is
known without looking at the text or at other windows, and every chapter holds each objective in its
proportion. Where a proportion does not come out even, the slots that are left over change their
objective from chapter to chapter, by chance, and are sized for the one with the shortest text.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Float64, Int32, Int64

from glm_jax.data.objectives import BlankConfig, Objective
from glm_jax.data.texts import text_lengths

SLOTS = 100  # of a chapter: whole percentages come out even

_DRAWN = -1  # kind of a slot whose objective is drawn


class Kind(NamedTuple):
    """One sort of example.

    `share` is its part of all examples; `text_length` counts ENC.
    """

    objective: Objective
    single_span: bool
    share: float
    text_length: int


def kinds_of(config: BlankConfig, sequence_length: int) -> tuple[Kind, ...]:
    """All sorts of examples that are mixed; their shares add up to 1."""
    single = config.single_span_probability
    parts = [
        (kind, False, (1 - single) * share)
        for kind, share in zip(Objective, config.proportions, strict=False)
        if share > 0
    ]
    parts.append((config.first_objective, config.token > 0, single))
    lengths = text_lengths(config, sequence_length)
    return tuple(
        Kind(objective, is_single, share, lengths[objective][is_single])
        for objective, is_single, share in parts
        if share > 0
    )


class Tiling:
    """The windows of a stream of `num_tokens` tokens; together they cover it exactly.

    As many slots are laid side by side as the stream needs. They reach beyond its end by less than
    one window: all are made shorter by the same factor, which takes a token from a few of them.
    """

    def __init__(self, kinds: tuple[Kind, ...], num_tokens: int) -> None:
        """Lay the slots out; `num_tokens` is at least the longest text of `kinds`."""
        self._slot_kind, self._left_over = _chapter(kinds)
        lengths = np.array([kind.text_length for kind in kinds])
        shortest = lengths[self._left_over > 0].min(initial=lengths.max())
        in_slots = np.where(self._slot_kind == _DRAWN, shortest, lengths[self._slot_kind])
        # A window that begins inside a document gets ENC in front.
        self._slot_start = np.concatenate([[0], np.cumsum(in_slots - 1)])
        self._chapter_tokens = int(self._slot_start[-1])
        self._number_drawn = np.cumsum(self._slot_kind == _DRAWN) - 1  # of a drawn slot
        chapters, rest = divmod(num_tokens, self._chapter_tokens)
        slots = int(np.searchsorted(self._slot_start, rest))
        self.num_windows = chapters * SLOTS + slots
        self.num_chapters = chapters + (slots > 0)
        self._laid_out = chapters * self._chapter_tokens + int(self._slot_start[slots])
        self._too_many = self._laid_out - num_tokens

    def bounds(
        self, window: Int64[tf.Tensor, "B"]
    ) -> tuple[Int64[tf.Tensor, "B"], Int64[tf.Tensor, "B"]]:
        """Where each window begins and how many tokens it has."""
        slot = tf.math.floormod(window, SLOTS)
        slot_start = tf.constant(self._slot_start)
        before = self.chapter(window) * self._chapter_tokens
        start = self._shortened(before + tf.gather(slot_start, slot))
        end = self._shortened(before + tf.gather(slot_start, slot + 1))
        return start, end - start

    def chapter(self, window: Int64[tf.Tensor, "B"]) -> Int64[tf.Tensor, "B"]:
        """In which chapter each window lies, from 0 to `num_chapters` - 1."""
        return window // SLOTS

    def kind(
        self, window: Int64[tf.Tensor, "B"], uniform: Float64[tf.Tensor, "B"]
    ) -> Int32[tf.Tensor, "B"]:
        """Index into the kinds; `uniform` is a number in [0, 1) of each window's chapter."""
        slot = tf.math.floormod(window, SLOTS)
        fixed = tf.gather(tf.constant(self._slot_kind, tf.int32), slot)
        # One number for all slots that are left over: each kind gets its share of them, rounded
        # up or down by chance.
        point = uniform + tf.cast(tf.gather(tf.constant(self._number_drawn), slot), tf.float64)
        bounds = tf.constant(np.cumsum(self._left_over)[:-1], tf.float64)
        drawn = tf.searchsorted(bounds, point, side="right")
        return tf.where(tf.equal(fixed, _DRAWN), drawn, fixed)

    def _shortened(self, place: tf.Tensor) -> tf.Tensor:
        return place - place * self._too_many // self._laid_out


def _chapter(
    kinds: tuple[Kind, ...],
) -> tuple[Int64[np.ndarray, "slots"], Float64[np.ndarray, "kinds"]]:
    """The kind of every slot, spread evenly, and what of each kind is left to be drawn."""
    exact = SLOTS * np.array([kind.share for kind in kinds])
    whole = np.floor(exact + 1e-9).astype(np.int64)
    drawn = SLOTS - int(whole.sum())
    left_over = np.maximum(exact - whole, 0.0) if drawn else np.zeros(len(kinds))
    left_over = np.where(left_over < 1e-9, 0.0, left_over)
    numbers = [*enumerate(whole), (_DRAWN, drawn)]
    places = [((i + 0.5) / count, kind) for kind, count in numbers for i in range(count)]
    return np.array([kind for _, kind in sorted(places)], np.int64), left_over
