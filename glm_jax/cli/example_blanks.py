"""Sentences that a run has not trained on, each with one blank, to show what it has learnt."""

from __future__ import annotations

import dataclasses
import re

import numpy as np

from glm_jax.data.store.store import Split
from glm_jax.tokenizer import Tokenizer

TOKENS_READ = 1 << 16
SENTENCE_LENGTH = range(50, 111)  # characters: a line or so of a terminal
BLANK_WORDS = 2


@dataclasses.dataclass(frozen=True)
class HeldOutBlank:
    """A sentence with some words replaced by "[MASK]", and these words."""

    text: str
    answer: str


def held_out_blanks(
    split: Split, tokenizer: Tokenizer, count: int, max_tokens: int
) -> list[HeldOutBlank]:
    """Sentences spread over the start of a split, two words in the middle of each left out.

    Args:
      split: held-out part of a token store.
      tokenizer: the one that the store was written with.
      count: how many; fewer come back where the text has fewer plain sentences.
      max_tokens: longest text with its blank, in tokens.
    """
    length = min(split.num_tokens, TOKENS_READ)
    ids = split.read(np.zeros(1, np.int64), length)[0]
    document_starts = np.flatnonzero(ids == tokenizer.special["ENC"])
    blanks = [
        with_blank(sentence)
        for document in np.split(ids, document_starts)
        for sentence in plain_sentences(tokenizer.decode(_without_special(document, tokenizer)))
    ]
    fitting = [blank for blank in blanks if len(tokenizer.encode(blank.text)) <= max_tokens]
    chosen = np.linspace(0, len(fitting) - 1, min(count, len(fitting))).astype(int)
    return [fitting[index] for index in chosen]


def plain_sentences(text: str) -> list[str]:
    """The sentences of a text that are prose of a line's length: no code, formulas or lists."""
    sentences = (part.strip() for part in re.split(r"(?<=[.?!])\s+|\n\s*\n", text))
    return [
        " ".join(sentence.split())
        for sentence in sentences
        if len(sentence) in SENTENCE_LENGTH
        and re.fullmatch(r"[A-Z][a-z]* [A-Za-z ,'\-\n]+\.", sentence)
    ]


def with_blank(sentence: str) -> HeldOutBlank:
    """Leaves out the words in the middle of a sentence."""
    words = sentence.split(" ")
    start = (len(words) - BLANK_WORDS) // 2
    left_out = slice(start, start + BLANK_WORDS)
    answer = " ".join(words[left_out])
    words[left_out] = ["[MASK]"]
    return HeldOutBlank(" ".join(words), answer)


def _without_special(ids: np.ndarray, tokenizer: Tokenizer) -> list[int]:
    special = set(tokenizer.special.values())
    return [int(i) for i in ids if int(i) not in special]
