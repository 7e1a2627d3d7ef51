"""Sentences that a run has not trained on, each with one blank, to show what it has learnt."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence

import numpy as np

from glm_jax.data.store.store import Split
from glm_jax.generate.fill import Filler
from glm_jax.generate.settings import Sampling
from glm_jax.tokenizer import Tokenizer

TOKENS_READ = 1 << 16
SENTENCE_LENGTH = range(50, 111)  # characters: a line or so of a terminal
BLANK_WORDS = 1
NUM_ANSWERS = 3
# Twice as many hypotheses: different tokens may make the same text.
SEARCH = Sampling(beams=2 * NUM_ANSWERS, min_blank_length=1, max_blank_length=8)


@dataclasses.dataclass(frozen=True)
class HeldOutBlank:
    """A sentence with some words replaced by "[MASK]", and these words."""

    text: str
    answer: str


@dataclasses.dataclass(frozen=True)
class Guess:
    """What a model makes of a blank.

    Attributes:
      answers: those found to be the most probable, the best first, with their probabilities.
      truth: the probability of the words that were left out.
    """

    answers: list[tuple[str, float]]
    truth: float


def held_out_blanks(
    split: Split, tokenizer: Tokenizer, count: int, max_tokens: int
) -> list[HeldOutBlank]:
    """Sentences spread over the start of a split, the word in the middle of each left out.

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


def guesses(filler: Filler, blanks: Sequence[HeldOutBlank]) -> list[Guess]:
    """The most probable answers for blanks, found by beam search, and the truth's probability."""
    texts = [blank.text for blank in blanks]
    # Where words follow a space, it belongs to the answer in some vocabularies.
    truths = filler.score(texts, [[blank.answer, f" {blank.answer}"] for blank in blanks])
    found = []
    for filled, scores in zip(filler.fill(texts, SEARCH), truths, strict=True):
        best = filled.blanks[0]
        answers: dict[str, float] = {}
        for blank in (best, *best.alternatives):
            answers.setdefault(blank.text.strip(), math.exp(blank.log_prob))
        answers.pop("", None)
        truth = math.exp(max(score.log_prob for score in scores))
        found.append(Guess(list(answers.items())[:NUM_ANSWERS], truth))
    return found


def shown_share(share: float) -> str:
    """A probability as a percentage of one or two digits: 23%, 1.4%, 0.02%."""
    digits = 0 if share >= 0.0995 else 1 if share >= 0.00995 else 2
    return f"{share:.{digits}%}" if share >= 0.00005 else "below 0.01%"


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
