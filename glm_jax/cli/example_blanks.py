"""Sentences that a run has not trained on, without their ends, to show what it has learnt."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from glm_jax.data.store.store import Split
from glm_jax.generate.batched import ROWS_AT_ONCE, search
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


class Token(NamedTuple):
    """A token, how it is shown, and its probability."""

    id: int
    text: str
    share: float


@dataclasses.dataclass(frozen=True)
class Guess:
    """What a model expects after the first words of a sentence.

    Attributes:
      before: these words; those of the blank are written in it already.
      after: the words that follow.
      answers: the most probable tokens, the best first.
      truth: the first token of what follows.
    """

    before: str
    after: str
    answers: list[Token]
    truth: Token

    @property
    def sentence(self) -> str:
        """All words."""
        return f"{self.before} {self.after}"

    @property
    def is_right(self) -> bool:
        """Whether the best answer is the truth."""
        return self.answers[0].id == self.truth.id


def held_out_blanks(
    split: Split, tokenizer: Tokenizer, count: int, max_tokens: int
) -> list[HeldOutBlank]:
    """Sentences spread over the start of a split, the last third of each left out.

    Args:
      split: held-out part of a token store.
      tokenizer: the one that the store was written with.
      count: how many; fewer come back where the text has fewer plain sentences.
      max_tokens: of the longest text with its mask, and of the longest ending.
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
    fitting = [
        blank
        for blank in blanks
        if len(tokenizer.encode(blank.text)) <= max_tokens
        and len(ending_ids(tokenizer, blank)) <= max_tokens
    ]
    chosen = np.linspace(0, len(fitting) - 1, min(count, len(fitting))).astype(int)
    return [fitting[index] for index in chosen]


def guesses(filler: Filler, blanks: Sequence[HeldOutBlank]) -> list[Guess]:
    """What the model expects at every word of the blanks, those before it being written."""
    tokenizer = filler.tokenizer
    prompts = [filler.read(blank.text).prompt for blank in blanks]
    endings = [ending_ids(tokenizer, blank) for blank in blanks]
    scores = score_answers(
        filler.decoder, prompts, [[[ids]] for ids in endings], num_rows=ROWS_AT_ONCE
    )
    starts = [word_starts(tokenizer, blank) for blank in blanks]
    continued = [
        dataclasses.replace(prompt, written=ids[:start])
        for prompt, ids, found in zip(prompts, endings, starts, strict=True)
        for start in found.values()
    ]
    expected = iter(search(filler.decoder, continued, SEARCH))

    def token(id: int, log_prob: float) -> Token:
        text = tokenizer.decode([id])
        shown = text.strip() or ("(new line)" if "\n" in text else "(space)")
        return Token(id, shown, math.exp(log_prob))

    made = []
    for blank, ids, found, (score,) in zip(blanks, endings, starts, scores, strict=True):
        words = blank.ending.split(" ")
        for number, start in found.items():
            (hypotheses,) = next(expected)
            made.append(
                Guess(
                    " ".join([blank.words, *words[:number]]),
                    " ".join(words[number:]),
                    [token(each.blank.ids[0], each.blank.log_probs[0]) for each in hypotheses],
                    token(ids[start], score.blanks[0].log_probs[start]),
                )
            )
    return made


def surest(made: Sequence[Guess], count: int) -> list[Guess]:
    """The guesses with the most probable answers, right or not; each answer and sentence once."""
    chosen: list[Guess] = []
    for guess in sorted(made, key=lambda guess: -guess.answers[0].share):
        answers = {other.answers[0].id for other in chosen}
        sentences = {other.sentence for other in chosen}
        if guess.answers[0].id not in answers and guess.sentence not in sentences:
            chosen.append(guess)
    return chosen[:count]


def ending_ids(tokenizer: Tokenizer, blank: HeldOutBlank) -> list[int]:
    """The tokens of what is left out, as they follow the first words."""
    num_shown = len(tokenizer.encode_text(blank.words))
    return tokenizer.encode_text(f"{blank.words} {blank.ending}")[num_shown:]


def word_starts(tokenizer: Tokenizer, blank: HeldOutBlank) -> dict[int, int]:
    """The index of the first token of each word of an ending, by the word's number.

    Words that do not start with a token of their own are left out.
    """
    ids, words = ending_ids(tokenizer, blank), blank.ending.split(" ")
    found = {}
    for number in range(len(words)):
        part = ending_ids(tokenizer, dataclasses.replace(blank, ending=" ".join(words[:number])))
        part = part if number else []
        if len(part) < len(ids) and ids[: len(part)] == part:
            found[number] = len(part)
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


def with_blank(sentence: str, mask: str) -> HeldOutBlank:
    """Leaves out the last third of the words of a sentence."""
    words = sentence.split(" ")
    start = 2 * len(words) // 3
    shown = " ".join(words[:start])
    return HeldOutBlank(f"{shown} {mask}", shown, " ".join(words[start:]))


def _without_special(ids: np.ndarray, tokenizer: Tokenizer) -> list[int]:
    special = set(tokenizer.special.values())
    return [int(i) for i in ids if int(i) not in special]
