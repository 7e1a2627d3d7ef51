"""Filling the blanks of texts from left to right, and scoring given answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxtyping import PyTree

from glm_jax.errors import UsageError
from glm_jax.generate.batched import ROWS_AT_ONCE, draw, search
from glm_jax.generate.beam_engine import FoundBlank
from glm_jax.generate.decoder import make_decoder, power_of_two
from glm_jax.generate.engine import ActiveFill, FilledBlank
from glm_jax.generate.prompt import (
    Prompt,
    bare_prompt,
    check_positions,
    check_vocabulary,
    encode_with_blank,
    make_prompt,
    mask_ids,
    stretches,
)
from glm_jax.generate.score import AnswerScore, check_answers, score_answers
from glm_jax.generate.settings import Sampling
from glm_jax.model import GLM
from glm_jax.model.chatglm_config import ChatGLMConfig
from glm_jax.tokenizer import Tokenizer
from glm_jax.tokenizer.streaming import shared_length


@dataclasses.dataclass(frozen=True)
class Blank:
    """The model's completion of one blank.

    Attributes:
      ids: its tokens, without its start and end tokens.
      text: the decoded tokens.
      log_probs: the log-probability of each token under the model, before sampling constraints.
      end_log_prob: of the token that ended the blank; None if it reached its limit.
      score: of beam search, log-probability / length^penalty; None without.
      alternatives: the other hypotheses of beam search, the best first.
    """

    ids: list[int]
    text: str
    log_probs: list[float] = dataclasses.field(default_factory=list)
    end_log_prob: float | None = None
    score: float | None = None
    alternatives: list[Blank] = dataclasses.field(default_factory=list)

    @property
    def log_prob(self) -> float:
        """Log-probability of the blank, its end included."""
        return sum(self.log_probs) + (self.end_log_prob or 0.0)


@dataclasses.dataclass(frozen=True)
class FilledText:
    """A text with its blanks replaced.

    Attributes:
      text: the text with its blanks filled.
      blanks: the completions, in the order of the text.
      spans: start and end of each blank in `text`, in characters.
      samples: all samples, in the order of their drawing, where there are several; `text` and
        `blanks` are those of the most probable one.
    """

    text: str
    blanks: list[Blank]
    spans: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    samples: list[FilledText] = dataclasses.field(default_factory=list)

    @property
    def log_prob(self) -> float:
        """Log-probability of all blanks."""
        return sum(blank.log_prob for blank in self.blanks)


class Reading(NamedTuple):
    """A text as the network reads it.

    Attributes:
      ids: what is shown of it, with a mask for every blank of the prompt.
      prompt: Part A.
    """

    ids: list[int]
    prompt: Prompt


def fill(
    model: GLM,
    params: PyTree,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    sampling: Sampling | None = None,
) -> list[FilledText]:
    """Fills every blank of every text (contract C6).

    A text without a blank is continued at its end. For repeated calls use a `Filler`; this function
    makes one for each call.

    Args:
      model: the network.
      params: its parameters.
      tokenizer: the one that the model was trained with.
      texts: each with any number of "[MASK]", "[sMASK]" and "[gMASK]".
      sampling: sampling settings; the default is greedy with at most 64 tokens per blank.

    Raises:
      UsageError: a text has more tokens than the model has positions, or the tokenizer has more
        tokens than the model.
    """
    return Filler(model, params, tokenizer).fill(texts, sampling or Sampling())


def score(
    model: GLM,
    params: PyTree,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    answers: Sequence[Sequence[str | Sequence[str]]],
) -> list[list[AnswerScore]]:
    """How probable given answers are for the blanks of texts.

    Args:
      model: the network.
      params: its parameters.
      tokenizer: the one that the model was trained with.
      texts: each with any number of "[MASK]", "[sMASK]" and "[gMASK]"; without one, the answers
        continue it.
      answers: for every text any number of answers: one string where there is one blank, else one
        for each blank. They are encoded unchanged: where a word follows a blank after a space,
        most vocabularies want the space in the answer.

    Returns:
      For every text a score for each of its answers.

    Raises:
      UsageError: the numbers of texts, answers and blanks do not fit, something has more tokens
        than the model has positions, or the tokenizer has more tokens than the model.
    """
    return Filler(model, params, tokenizer).score(texts, answers)


class Filler:
    """A model and its tokenizer, prepared to fill texts and to score answers."""

    def __init__(self, model: GLM, params: PyTree, tokenizer: Tokenizer):
        """Prepares the model for decoding, with a copy of its parameters.

        Raises:
          UsageError: the tokenizer has more tokens than the model.
        """
        check_vocabulary(tokenizer, model.config.vocab_size)
        self.config = model.config
        self.tokenizer = tokenizer
        self.decoder = make_decoder(model, params, tokenizer.special)
        self._masks = mask_ids(tokenizer.special)

    @property
    def trained_for(self) -> dict[str, Any] | None:
        """What the network was finetuned for, as JSON values; None where that is not known."""
        return None

    def sampling(self, text: str, given: Mapping[str, Any]) -> Sampling:
        """The settings that a text is filled with.

        Args:
          text: the text.
          given: fields of `Sampling`; the others have their defaults.

        Raises:
          UsageError: as `Sampling`.
        """
        return Sampling(**given)

    def is_read_in_windows(self, text: str) -> bool:
        """Whether a text has several prompts, so that it can't be filled token by token."""
        return False

    def read(self, text: str) -> Reading:
        """A text as the network reads it.

        Raises:
          UsageError: it has more tokens than the model has positions.
        """
        ids = encode_with_blank(self.tokenizer, text)
        make = bare_prompt if isinstance(self.config, ChatGLMConfig) else make_prompt
        prompt = make(ids, self.tokenizer.special)
        check_positions(prompt, self.config.num_positions)
        return Reading(ids, prompt)

    def fill(self, texts: Sequence[str], sampling: Sampling) -> list[FilledText]:
        """As the function `fill`."""
        return self.fill_read([self.read(text) for text in texts], sampling)

    def fill_read(self, readings: Sequence[Reading], sampling: Sampling) -> list[FilledText]:
        """Fills texts that have been read."""
        encoded = [reading.ids for reading in readings]
        prompts = [reading.prompt for reading in readings]
        sampling = limited(sampling, self.config.max_sequence_length)
        if sampling.beams > 1:
            return [
                self._text(ids, [self._searched(found) for found in blanks])
                for ids, blanks in zip(
                    encoded, search(self.decoder, prompts, sampling), strict=True
                )
            ]
        drawn = draw(self.decoder, prompts, sampling)
        return [
            best_first([self.filled(ids, active.blanks) for active in samples])
            for ids, samples in zip(encoded, drawn, strict=True)
        ]

    def write(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[str]:
        """The text of the first blank of every prompt."""
        sampling = limited(sampling, self.config.max_sequence_length)
        if sampling.beams > 1:
            blanks = [found[0][0].blank for found in search(self.decoder, prompts, sampling)]
        else:
            blanks = [some[0].blanks[0] for some in draw(self.decoder, prompts, sampling)]
        return [self.tokenizer.decode(blank.ids) for blank in blanks]

    def start(self, text: str, sampling: Sampling) -> tuple[list[int], list[ActiveFill]]:
        """Prepares a text for an `Engine`: its ids, and one entry per sample.

        Raises:
          UsageError: it has more tokens than the model has positions.
        """
        ids, prompt = self.read(text)
        sampling = limited(sampling, self.config.max_sequence_length)
        return ids, [ActiveFill(prompt, sampling, number) for number in range(sampling.samples)]

    def score(
        self, texts: Sequence[str], answers: Sequence[Sequence[str | Sequence[str]]]
    ) -> list[list[AnswerScore]]:
        """As the function `score`."""
        prompts = [self.read(text).prompt for text in texts]
        checked = check_answers(texts, answers, [len(prompt.masks) for prompt in prompts])
        encode = self.tokenizer.encode_text  # a mask in an answer is text
        ids = [[[encode(blank) for blank in answer] for answer in some] for some in checked]
        longest = max((len(b) for some in ids for answer in some for b in answer), default=0)
        if longest > self.config.max_sequence_length:
            raise UsageError(
                f"an answer has {longest} tokens, but the model has positions only for "
                f"{self.config.max_sequence_length}"
            )
        total = sum(len(some) for some in ids)
        num_rows = min(ROWS_AT_ONCE, power_of_two(total))
        return score_answers(self.decoder, prompts, ids, num_rows=num_rows)

    def filled(self, ids: Sequence[int], blanks: Sequence[FilledBlank]) -> FilledText:
        """The filled text, from the ids with masks and the completed blanks."""
        return self._text(ids, [self._blank(blank) for blank in blanks])

    def _text(self, ids: Sequence[int], blanks: list[Blank]) -> FilledText:
        first, *others = stretches(ids, self._masks)
        replaced, token_spans = list(first), []
        for blank, after in zip(blanks, others, strict=True):
            token_spans.append((len(replaced), len(replaced) + len(blank.ids)))
            replaced += [*blank.ids, *after]
        text = self.tokenizer.decode(replaced)

        def characters(count: int) -> int:
            """Characters of the first tokens, without one that only later tokens complete."""
            part = self.tokenizer.decode(replaced[:count])
            return shared_length(part, text)

        spans = [(characters(start), characters(end)) for start, end in token_spans]
        return FilledText(text, blanks, spans)

    def _blank(self, blank: FilledBlank, score: float | None = None) -> Blank:
        text = self.tokenizer.decode(blank.ids)
        return Blank(blank.ids, text, blank.log_probs, blank.end_log_prob, score)

    def _searched(self, found: Sequence[FoundBlank]) -> Blank:
        best, *others = [self._blank(blank, score) for blank, score in found]
        return dataclasses.replace(best, alternatives=others)


def limited(sampling: Sampling, max_sequence_length: int) -> Sampling:
    """The same settings with blanks no longer than the model has positions for."""
    longest = min(sampling.max_blank_length, max_sequence_length)
    shortest = min(sampling.min_blank_length, longest)
    return dataclasses.replace(sampling, max_blank_length=longest, min_blank_length=shortest)


def best_first(samples: Sequence[FilledText]) -> FilledText:
    """The most probable of several samples, with all of them in `samples`."""
    if len(samples) == 1:
        return samples[0]
    best = max(samples, key=lambda sample: sample.log_prob)
    return dataclasses.replace(best, samples=list(samples))
