"""Exact epochs: each token of a split once, in windows visited in random order.

The tokens of a split form a ring. An epoch divides it, from its own phase, into the windows of a
`Tiling` and visits them by a random permutation. There is no state between examples: the
permutation is `tf.random_index_shuffle`, and the phase a function of the epoch.
"""

from typing import NamedTuple, cast

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float64, Int32, Int64

from glm_jax.data.blanks.config import BlankConfig, Objective
from glm_jax.data.order.texts import PythonCalls, Texts, TokenSplit, text_lengths
from glm_jax.data.randomness import RandomStream, integers, uniforms
from glm_jax.errors import UsageError


class Windows(NamedTuple):
    """Parts of a ring of tokens, and what each is used for."""

    start: Int64[tf.Tensor, "B"]
    size: Int64[tf.Tensor, "B"]
    objective: Int32[tf.Tensor, "B"]
    single_span: Bool[tf.Tensor, "B"]


class EpochOrder:
    """Example index -> window of the split, in exact epochs."""

    def __init__(
        self, num_tokens: int, config: BlankConfig, *, sequence_length: int, seed: int
    ) -> None:
        """Divide a split of `num_tokens` tokens.

        Raises:
          UsageError: the split is shorter than a sequence.
        """
        check_num_tokens(num_tokens, sequence_length)
        self._kinds = kinds_of(config, sequence_length)
        self._tiling = Tiling(self._kinds, num_tokens)
        self._num_tokens = num_tokens
        self._seed = seed

    @property
    def num_windows(self) -> int:
        """Examples of an epoch."""
        return self._tiling.num_windows

    @property
    def text_length(self) -> int:
        """T: the longest text."""
        return max(kind.text_length for kind in self._kinds)

    def windows(self, example: Int64[tf.Tensor, "B"]) -> Windows:
        """The window of each example."""
        epoch = example // self.num_windows
        window = self._permuted(epoch, tf.math.floormod(example, self.num_windows))
        start, size = self._tiling.bounds(window)
        phase = integers(self._uniform(epoch, None), self._num_tokens, tf.int64)
        kind = self._tiling.kind(window, self._uniform(epoch, window))
        return Windows(
            tf.math.floormod(phase + start, self._num_tokens),
            size,
            tf.gather(tf.constant([int(kind.objective) for kind in self._kinds]), kind),
            tf.gather(tf.constant([kind.single_span for kind in self._kinds]), kind),
        )

    def _uniform(self, epoch: tf.Tensor, window: tf.Tensor | None) -> tf.Tensor:
        """Every epoch has its own numbers: one for the phase, then one for each chapter."""
        number = 0 if window is None else 1 + self._tiling.chapter(window)
        key = epoch * (1 + self._tiling.num_chapters) + number
        return uniforms(self._seed, RandomStream.ORDER, key, 1)[:, 0]

    def _permuted(self, epoch: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        # random_index_shuffle takes a seed of three numbers for every index, of which it needs one.
        index, epoch = tf.pad(index, [[0, 1]]), tf.pad(epoch, [[0, 1]])
        fixed = tf.fill(tf.shape(epoch), tf.constant(self._seed % 2**63, tf.int64))
        shuffled = tf.random_index_shuffle(
            index,
            seed=tf.stack([fixed, epoch, tf.zeros_like(epoch)], axis=1),
            max_index=tf.constant(self.num_windows - 1, tf.int64),
        )
        return cast(tf.Tensor, shuffled)[:-1]


class EpochTexts:
    """The texts of a split in exact epochs (a `TextSource`)."""

    def __init__(self, split: TokenSplit, order: EpochOrder, *, enc: int) -> None:
        """Read `split` in an order that was made for its length; texts start with `enc`."""
        self._split, self._order, self._enc = split, order, enc

    def __call__(self, example: Int64[tf.Tensor, "B"], calls: PythonCalls) -> Texts:
        windows = self._order.windows(example)
        text, length = calls.call(self._read, [windows.start, windows.size], [tf.int32, tf.int32])
        text = tf.ensure_shape(text, [None, self._order.text_length])
        length = tf.ensure_shape(length, [None])
        return Texts(text, length, windows.objective, windows.single_span)

    def _read(
        self, start: Int64[np.ndarray, "B"], size: Int64[np.ndarray, "B"]
    ) -> tuple[Int32[np.ndarray, "B T"], Int32[np.ndarray, "B"]]:
        return read_windows(self._split, start, size, self._order.text_length, self._enc)


def read_windows(
    split: TokenSplit,
    start: Int64[np.ndarray, "B"],
    size: Int64[np.ndarray, "B"],
    text_length: int,
    enc: int,
) -> tuple[Int32[np.ndarray, "B T"], Int32[np.ndarray, "B"]]:
    """Texts of the split taken as a ring, and their lengths.

    A window of `size` < `text_length` tokens that starts inside a document gets ENC in front.
    """
    tokens = _read_ring(split, start, text_length - 1)
    text = np.empty((len(tokens), text_length), np.int32)
    text[:, 0] = enc
    text[:, 1:] = tokens
    inside = tokens[:, 0] != enc
    text[~inside, :-1] = tokens[~inside]
    return text, (size + inside).astype(np.int32)


def _read_ring(
    split: TokenSplit, start: Int64[np.ndarray, "B"], length: int
) -> Int32[np.ndarray, "B length"]:
    last = split.num_tokens - length
    tokens = np.array(split.read(np.minimum(start, last), length), np.int32)
    for row in np.flatnonzero(start > last):  # over the end of the ring
        over = int(start[row] - last)
        beginning = split.read(np.zeros(1, np.int64), over)[0]
        tokens[row] = np.concatenate([tokens[row, over:], beginning])
    return tokens


def check_num_tokens(num_tokens: int, sequence_length: int) -> None:
    """Raises UsageError if a split is shorter than a sequence."""
    if num_tokens < sequence_length:
        raise UsageError(
            f"the split has {num_tokens} tokens, but one example needs {sequence_length} of them: "
            "give it more text or make the sequence shorter."
        )


SLOTS = 100  # of a chapter: integer percentages come out even

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
        for kind, share in config.proportions.items()
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
    """The windows of a split of `num_tokens` tokens; together they cover it exactly.

    As many slots are laid side by side as the split needs. They reach beyond its end by less than
    one window: all are made shorter by the same factor, which takes a token from a few of them.
    """

    def __init__(self, kinds: tuple[Kind, ...], num_tokens: int) -> None:
        """Lay the slots out; `num_tokens` is at least the longest text of `kinds`."""
        self._slot_kind, self._left_over = _chapter(kinds)
        lengths = np.array([kind.text_length for kind in kinds])
        min_length = lengths[self._left_over > 0].min(initial=lengths.max())
        in_slots = np.where(self._slot_kind == _DRAWN, min_length, lengths[self._slot_kind])
        # A window that starts inside a document gets ENC in front.
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
        """Where each window starts and how many tokens it has."""
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

    def _shortened(self, offset: tf.Tensor) -> tf.Tensor:
        return offset - offset * self._too_many // self._laid_out


def _chapter(
    kinds: tuple[Kind, ...],
) -> tuple[Int64[np.ndarray, "slots"], Float64[np.ndarray, "kinds"]]:
    """The kind of every slot, spread evenly, and what of each kind is left to be drawn."""
    exact = SLOTS * np.array([kind.share for kind in kinds])
    fixed = np.floor(exact + 1e-9).astype(np.int64)
    drawn = SLOTS - int(fixed.sum())
    left_over = np.maximum(exact - fixed, 0.0) if drawn else np.zeros(len(kinds))
    left_over = np.where(left_over < 1e-9, 0.0, left_over)
    numbers = [*enumerate(fixed), (_DRAWN, drawn)]
    slots = [((i + 0.5) / count, kind) for kind, count in numbers for i in range(count)]
    return np.array([kind for _, kind in sorted(slots)], np.int64), left_over
