"""Texts as the original code samples them: documents by length, ending where sentences end.

A document is drawn with a probability proportional to its tokens. Of one that is longer than the
text, a random piece is taken: its start is moved, half the time backwards and half the time
forwards, to where a sentence starts, and its end back to where one ends. A shorter document is
followed by others from their starts, until there is no room. Examples are drawn independently,
so a token may come twice before another comes once.
"""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float64, Int32, Int64

from glm_jax.data.blanks.config import BlankConfig
from glm_jax.data.blanks.objectives import draw_objectives
from glm_jax.data.order.epochs import check_num_tokens
from glm_jax.data.order.texts import PythonCalls, Texts, TokenSplit, text_lengths
from glm_jax.data.randomness import RandomStream, uniforms
from glm_jax.errors import UsageError

_MIN_DOCUMENT_LENGTH = 3  # ENC, a token, eos
_MIN_ROOM = 2  # for another document: ENC and a token

# What an example's random numbers are for; from _DOCUMENTS on, one for every document.
_START, _BACKWARDS, _DOCUMENTS = range(3)


@runtime_checkable
class DocumentSplit(TokenSplit, Protocol):
    """A split with known document starts."""

    def document_starts(self) -> Int64[np.ndarray, "N"]: ...


class DocumentTexts:
    """Texts of a split by documents (a `TextSource`).

    Keeps two numbers of 8 bytes for every document of the split in memory.
    """

    def __init__(
        self,
        split: DocumentSplit,
        config: BlankConfig,
        *,
        enc: int,
        sentence_end: Bool[np.ndarray, "V"],
        sequence_length: int,
        seed: int,
    ) -> None:
        """Read the document starts of a split.

        Args:
          split: documents, each of them ENC, tokens and eos.
          config: how often each objective comes.
          enc: the token that texts start with.
          sentence_end: by token id, whether it ends a sentence; the original overlooks the
            full-width marks of Chinese here.
          sequence_length: L, Part A and Part B together.
          seed: data seed.

        Raises:
          UsageError: the split is shorter than a sequence, or has no document with text.
        """
        check_num_tokens(split.num_tokens, sequence_length)
        self._split, self._config, self._seed = split, config, seed
        self._enc, self._sentence_end = enc, sentence_end
        self._rooms = text_lengths(config, sequence_length)
        self._text_length = max(map(max, self._rooms))
        self._bounds = np.append(split.document_starts(), split.num_tokens)
        # Documents are drawn by their text: ENC and eos don't count.
        self._drawn_before = np.cumsum(np.maximum(np.diff(self._bounds) - 2, 0))
        if not self._drawn_before[-1]:
            raise UsageError("no document of the split has a token of text.")

    def __call__(self, example: Int64[tf.Tensor, "B"], calls: PythonCalls) -> Texts:
        objective, single_span = draw_objectives(example, self._config, self._seed)
        kind = tf.stack([objective, tf.cast(single_span, tf.int32)], axis=1)
        room = tf.gather_nd(tf.constant(self._rooms), kind)
        draws = _DOCUMENTS + self._text_length // _MIN_DOCUMENT_LENGTH + 1
        uniform = uniforms(self._seed, RandomStream.ORDER, example, draws)
        text, length = calls.call(self._read, [uniform, room], [tf.int32, tf.int32])
        text = tf.ensure_shape(text, [None, self._text_length])
        return Texts(text, tf.ensure_shape(length, [None]), objective, single_span)

    def _read(
        self, uniform: Float64[np.ndarray, "B draws"], room: Int32[np.ndarray, "B"]
    ) -> tuple[Int32[np.ndarray, "B T"], Int32[np.ndarray, "B"]]:
        """Texts of up to `room` tokens, and their lengths."""
        text = np.zeros((len(room), self._text_length), np.int32)
        length = np.zeros(len(room), np.int32)

        def write(row: int, position: int, tokens: np.ndarray) -> None:
            text[row, position : position + len(tokens)] = tokens
            length[row] = max(length[row], position + len(tokens))

        start, size = self._draw(uniform[:, _DOCUMENTS])
        is_long = size - 2 >= room
        for row, piece in self._random_pieces(np.flatnonzero(is_long), start, size, room, uniform):
            write(row, 0, piece)
        for row, position, piece in self._beginnings(np.flatnonzero(~is_long), room, uniform):
            write(row, position, piece)
        return text, length

    def _draw(
        self, uniform: Float64[np.ndarray, "N"]
    ) -> tuple[Int64[np.ndarray, "N"], Int64[np.ndarray, "N"]]:
        """Start and size of documents, ENC and eos included."""
        token = (uniform * self._drawn_before[-1]).astype(np.int64)
        number = np.searchsorted(self._drawn_before, token, side="right")
        return self._bounds[number], self._bounds[number + 1] - self._bounds[number]

    def _random_pieces(
        self,
        rows: Int64[np.ndarray, "R"],
        start: Int64[np.ndarray, "B"],
        size: Int64[np.ndarray, "B"],
        room: Int32[np.ndarray, "B"],
        uniform: Float64[np.ndarray, "B draws"],
    ) -> Iterator[tuple[int, Int32[np.ndarray, "length"]]]:
        """For each of some rows, a piece of its document with ENC in front."""
        start, size, room, uniform = (values[rows] for values in (start, size, room, uniform))
        first = 1 + (uniform[:, _START] * (size - 1 - room)).astype(np.int64)  # in the document
        width = min(2 * self._text_length + 1, self._split.num_tokens)
        read_start = np.clip(start + first - room // 2 - 1, 0, self._split.num_tokens - width)
        tokens = self._split.read(read_start, width)
        for i, row in enumerate(rows.tolist()):
            document = int(start[i] - read_start[i])  # in what was read; may lie before it
            position = self._sentence_start(
                tokens[i],
                document + int(first[i]),
                document + 1,
                int(room[i]) // 2,
                uniform[i, _BACKWARDS] < 0.5,
            )
            rest = tokens[i, position : document + int(size[i])]
            piece = np.concatenate([[self._enc], rest]).astype(np.int32)
            left = int(room[i])
            yield row, piece if len(piece) <= left else self._shorten(piece, left)

    def _beginnings(
        self,
        rows: Int64[np.ndarray, "R"],
        room: Int32[np.ndarray, "B"],
        uniform: Float64[np.ndarray, "B draws"],
    ) -> Iterator[tuple[int, int, Int32[np.ndarray, "length"]]]:
        """Consecutive documents until each of some rows is full: row, position and tokens."""
        used = np.zeros_like(room)
        pieces = []
        for number in range(_DOCUMENTS, uniform.shape[1]):
            start, size = self._draw(uniform[rows, number])
            pieces.append(np.stack([rows, used[rows], start, size], axis=1))
            used[rows] += np.minimum(size, room[rows]).astype(np.int32)
            rows = rows[used[rows] + _MIN_ROOM <= room[rows]]
            if not rows.size:
                break
        row, position, start, size = np.concatenate(pieces).T
        # Documents of similar size are read together: one read of all would be as wide as a text.
        width = np.minimum(2 ** np.ceil(np.log2(np.maximum(size, 1))), self._text_length)
        for group_width in np.unique(width).astype(np.int64):
            group = np.flatnonzero(width == group_width)
            read_start = np.minimum(start[group], self._split.num_tokens - group_width)
            for i, read_from, tokens in zip(
                group, read_start, self._split.read(read_start, int(group_width)), strict=True
            ):
                left = int(room[row[i]] - position[i])
                document = tokens[start[i] - read_from :][: size[i]]
                piece = document if size[i] <= left else self._shorten(document, left)
                yield int(row[i]), int(position[i]), piece

    def _sentence_start(
        self,
        tokens: Int32[np.ndarray, "width"],
        position: int,
        document: int,
        max_distance: int,
        backwards: bool,
    ) -> int:
        """`position`, moved up to `max_distance` tokens to the start of a sentence or document."""
        if backwards:
            lowest = max(position - max_distance, document)
            before = self._sentence_end[tokens[lowest - 1 : position]]
            found = np.flatnonzero(before[::-1])
            return position - int(found[0]) if found.size else lowest
        after = self._sentence_end[tokens[position - 1 : position - 1 + max_distance]]
        found = np.flatnonzero(after)
        at_start = position == document
        return position if at_start else position + (int(found[0]) if found.size else max_distance)

    def _shorten(self, tokens: Int32[np.ndarray, "length"], room: int) -> Int32[np.ndarray, "kept"]:
        """The tokens up to the last sentence end in `room`, if that leaves at least half of it."""
        found = np.flatnonzero(self._sentence_end[tokens[:room]])
        kept = int(found[-1]) + 1 if found.size else 0
        return tokens[: kept if kept >= room // 2 else room]
