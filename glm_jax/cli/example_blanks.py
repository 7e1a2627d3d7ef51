"""Sentences that a run has not trained on, without their ends, to show what it has learnt."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence

import numpy as np

from glm_jax.data.store.store import Split
from glm_jax.generate.fill import Filler
from glm_jax.generate.score import score_answers
from glm_jax.generate.settings import Sampling
from glm_jax.tokenizer import Tokenizer

TOKENS_READ = 1 << 16
SENTENCE_LENGTH = range(50, 111)  # characters: a line or so of a terminal
NUM_ANSWERS = 3
SEARCH = Sampling(beams=NUM_ANSWERS, min_blank_length=1, max_blank_length=1)


@dataclasses.dataclass(frozen=True)
class HeldOutBlank:
    """A sentence that is to be ended.

    Attributes:
      text: its first words, and a mask for its end.
      words: its first words.
      ending: the words that were left out.
    """

    text: str
    words: str
    ending: str


@dataclasses.dataclass(frozen=True)
class Guess:
    """What a model makes of a blank: tokens that it may start with, and their probabilities.

    Attributes:
      answers: the most probable ones, the best first.
      truth: the first token of what was left out.
    """

    answers: list[tuple[str, float]]
    truth: tuple[str, float]


def held_out_blanks(
    split: Split, tokenizer: Tokenizer, count: int, max_tokens: int
) -> list[HeldOutBlank]:
    """Sentences spread over the start of a split, the last third of each left out.

    Args:
      split: held-out part of a token store.
      tokenizer: the one that the store was written with.
      count: how many; fewer come back where the text has fewer plain sentences.
      max_tokens: longest text with its blank, in tokens.
    """
    length = min(split.num_tokens, TOKENS_READ)
    ids = split.read(np.zeros(1, np.int64), length)[0]
    mask = "[gMASK]" if "gMASK" in tokenizer.special else "[MASK]"
    document_starts = np.flatnonzero(ids == tokenizer.special["ENC"])
    blanks = [
        with_blank(sentence, mask)
        for document in np.split(ids, document_starts)
        for sentence in plain_sentences(tokenizer.decode(_without_special(document, tokenizer)))
    ]
    fitting = [blank for blank in blanks if len(tokenizer.encode(blank.text)) <= max_tokens]
    chosen = np.linspace(0, len(fitting) - 1, min(count, len(fitting))).astype(int)
    return [fitting[index] for index in chosen]


def guesses(filler: Filler, blanks: Sequence[HeldOutBlank]) -> list[Guess]:
    """The most probable first tokens of answers, and the truth's, with their probabilities."""
    texts = [blank.text for blank in blanks]
    prompts = [filler.read(text).prompt for text in texts]
    firsts = [first_token(filler.tokenizer, blank) for blank in blanks]
    truths = score_answers(
        filler.decoder, prompts, [[[[first]]] for first in firsts], num_rows=len(blanks)
    )

    def shown(token: int, log_prob: float) -> tuple[str, float]:
        text = filler.tokenizer.decode([token])
        return text.strip() or ("(new line)" if "\n" in text else "(space)"), math.exp(log_prob)

    found = []
    for filled, (score,), first in zip(filler.fill(texts, SEARCH), truths, firsts, strict=True):
        best = filled.blanks[0]
        tokens = [(blank.ids[0], blank.log_probs[0]) for blank in (best, *best.alternatives)]
        answers = [shown(token, log_prob) for token, log_prob in tokens[:NUM_ANSWERS]]
        found.append(Guess(answers, shown(first, score.blanks[0].log_probs[0])))
    return found


def first_token(tokenizer: Tokenizer, blank: HeldOutBlank) -> int:
    """The token that follows the first words of a sentence."""
    num_shown = len(tokenizer.encode_text(blank.words))
    return tokenizer.encode_text(f"{blank.words} {blank.ending}")[num_shown]


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


def with_blank(sentence: str, mask: str) -> HeldOutBlank:
    """Leaves out the last third of the words of a sentence."""
    words = sentence.split(" ")
    start = 2 * len(words) // 3
    shown = " ".join(words[:start])
    return HeldOutBlank(f"{shown} {mask}", shown, " ".join(words[start:]))


def _without_special(ids: np.ndarray, tokenizer: Tokenizer) -> list[int]:
    special = set(tokenizer.special.values())
    return [int(i) for i in ids if int(i) not in special]
