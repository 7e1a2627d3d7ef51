"""Texts drawn from the documents that `goldens/d_blocks/block_dataset.json` records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from glm_jax.data.blanks.config import BlankConfig
from glm_jax.data.order.documents import DocumentTexts
from glm_jax.data.order.texts import PythonCalls

WHOLE_TEXT = BlankConfig(masked_lm=True)  # without Part B: the text is as long as the sequence


class Documents:
    """Documents in memory, as a store has them."""

    def __init__(self, documents, special):
        stored = [[special["ENC"], *tokens, special["eos"]] for tokens in documents]
        self.ids = np.array([token for tokens in stored for token in tokens], np.int32)
        self.num_tokens = len(self.ids)
        self._starts = np.cumsum([0, *map(len, stored)])[:-1]

    def document_starts(self):
        return self._starts

    def read(self, starts, length):
        assert np.all(starts >= 0) and np.all(starts + length <= self.num_tokens)
        return self.ids[np.asarray(starts)[:, None] + np.arange(length)]


# The original's sampler looks for . ? ! ; : and newlines only, not for full-width marks.
SAMPLER_ENDS = np.isin(np.arange(1024), [10, 11, 12, 13, 14, 20, 21, 22, 23])
RECORDED_CASE = "across=True,non_sentence_start=0.0"
NUM_TEXTS = 40_000


def make_texts(
    documents: Sequence[Sequence[int]],
    count: int,
    special: Mapping[str, int],
    sentence_end: np.ndarray = SAMPLER_ENDS,
    *,
    blanks: BlankConfig = WHOLE_TEXT,
    length: int = 64,
    seed: int = 5,
    first: int = 0,
) -> list[tuple[int, ...]]:
    """Texts of a seed, from the one numbered `first` on."""
    source = DocumentTexts(
        Documents(documents, special), blanks, enc=special["ENC"],
        sentence_end=sentence_end, sequence_length=length, seed=seed,
    )  # fmt: skip
    texts = source(tf.range(first, first + count, dtype=tf.int64), PythonCalls())
    lengths = texts.length.numpy()
    return [tuple(row[:n].tolist()) for row, n in zip(texts.text.numpy(), lengths, strict=True)]


def draw_texts(recorded: Mapping[str, Any], special: Mapping[str, int]) -> list[tuple[int, ...]]:
    """So many texts of the recorded documents that every one that can be drawn is among them."""
    return make_texts([d["tokens"] for d in recorded["documents"]], NUM_TEXTS, special)


def read_items(recorded: Mapping[str, Any]) -> list[tuple[int, ...]]:
    """The recorded items of the settings that we have."""
    items = recorded["items_for_idx_0_to_29"][RECORDED_CASE]
    return [tuple(item["text"]) for item in items]
