"""Exact epochs: each token of a split once, in windows visited in random order.

The stream of a split is taken as a ring. An epoch cuts it, from a phase of its own, into the
windows of a `Tiling` and visits them by a random permutation. Nothing is remembered between
examples: the permutation is `tf.random_index_shuffle`, and the phase a function of the epoch.
"""

from typing import NamedTuple, cast

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Int32, Int64

from glm_jax.data.objectives import BlankConfig
from glm_jax.data.randomness import Stream, integers, uniforms
from glm_jax.data.texts import PythonCalls, Texts, TokenStream
from glm_jax.data.tiles import Tiling, kinds_of
from glm_jax.errors import UsageError


class Windows(NamedTuple):
    """Parts of a ring of tokens, and what each is used for."""

    start: Int64[tf.Tensor, "B"]
    size: Int64[tf.Tensor, "B"]
    objective: Int32[tf.Tensor, "B"]
    single_span: Bool[tf.Tensor, "B"]


class EpochOrder:
    """Example index -> window of the stream, in exact epochs."""

    def __init__(
        self, num_tokens: int, config: BlankConfig, *, sequence_length: int, seed: int
    ) -> None:
        """Cut a stream of `num_tokens` tokens.

        Raises:
          UsageError: the stream is shorter than a sequence.
        """
        check_stream_length(num_tokens, sequence_length)
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
        """Every epoch has numbers of its own: one for the phase, then one for each chapter."""
        number = 0 if window is None else 1 + self._tiling.chapter(window)
        key = epoch * (1 + self._tiling.num_chapters) + number
        return uniforms(self._seed, Stream.ORDER, key, 1)[:, 0]

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

    def __init__(self, split: TokenStream, order: EpochOrder, *, enc: int) -> None:
        """Read `split` in an order that was made for its length; texts begin with `enc`."""
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
    split: TokenStream,
    start: Int64[np.ndarray, "B"],
    size: Int64[np.ndarray, "B"],
    text_length: int,
    enc: int,
) -> tuple[Int32[np.ndarray, "B T"], Int32[np.ndarray, "B"]]:
    """Texts of the split taken as a ring, and their lengths.

    A window of `size` < `text_length` tokens that begins inside a document gets ENC in front.
    """
    tokens = _read_ring(split, start, text_length - 1)
    text = np.empty((len(tokens), text_length), np.int32)
    text[:, 0] = enc
    text[:, 1:] = tokens
    inside = tokens[:, 0] != enc
    text[~inside, :-1] = tokens[~inside]
    return text, (size + inside).astype(np.int32)


def _read_ring(
    split: TokenStream, start: Int64[np.ndarray, "B"], length: int
) -> Int32[np.ndarray, "B length"]:
    last = split.num_tokens - length
    tokens = np.array(split.read(np.minimum(start, last), length), np.int32)
    for row in np.flatnonzero(start > last):  # over the end of the ring
        over = int(start[row] - last)
        beginning = split.read(np.zeros(1, np.int64), over)[0]
        tokens[row] = np.concatenate([tokens[row, over:], beginning])
    return tokens


def check_stream_length(num_tokens: int, sequence_length: int) -> None:
    """Raises UsageError if a split is shorter than a sequence."""
    if num_tokens < sequence_length:
        raise UsageError(
            f"the split has {num_tokens} tokens, but one example needs {sequence_length} of them: "
            "give it more text or make the sequence shorter."
        )
