"""How probable given answers are for given blanks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from glm_jax.errors import UsageError
from glm_jax.generate.decoder import Decoder, network, power_of_two
from glm_jax.generate.prompt import Prompt
from glm_jax.model.attention.mask import memory_mask
from glm_jax.model.decoding import DecodingGLM
from glm_jax.model.kv_cache import Cache

# Minimum padded length of Part B.
MIN_PART_B_LENGTH = 16


@dataclasses.dataclass(frozen=True)
class BlankScore:
    """One answer in one blank.

    Attributes:
      ids: the answer's tokens.
      log_probs: the log-probability of each, given the text and the tokens before it.
      end_log_prob: that the blank ends there.
    """

    ids: list[int]
    log_probs: list[float]
    end_log_prob: float

    @property
    def log_prob(self) -> float:
        """Log-probability of the answer and of its end."""
        return sum(self.log_probs) + self.end_log_prob


@dataclasses.dataclass(frozen=True)
class AnswerScore:
    """One answer to all blanks of a text."""

    blanks: list[BlankScore]

    @property
    def log_prob(self) -> float:
        """Log-probability of all blanks, each given those before it."""
        return sum(blank.log_prob for blank in self.blanks)


class PartB(NamedTuple):
    """Part B of one text with one answer: input tokens, position ids and targets."""

    tokens: list[int]
    position_ids: list[tuple[int, int]]
    targets: list[int]


def score_answers(
    decoder: Decoder,
    prompts: Sequence[Prompt],
    answers: Sequence[Sequence[Sequence[Sequence[int]]]],
    *,
    num_rows: int,
) -> list[list[AnswerScore]]:
    """Scores answers given as ids; Part A of a text is read once for all its answers in a batch.

    Args:
      decoder: the network.
      prompts: Part A of the texts.
      answers: for every text any number of answers, each with the ids of every blank.
      num_rows: answers at a time.

    Returns:
      A score for every answer, in the same order.
    """
    flat = [
        (number, make_part_b(decoder, prompt, answer))
        for number, (prompt, some) in enumerate(zip(prompts, answers, strict=True))
        for answer in some
    ]
    if not flat:
        return [[] for _ in prompts]
    length = max(MIN_PART_B_LENGTH, power_of_two(max(len(part.tokens) for _, part in flat)))
    num_slots = max(len(prompt.ids) for prompt in prompts) + length
    cache = decoder.new_cache(num_rows, num_slots)
    log_probs: list[list[float]] = []
    for first in range(0, len(flat), num_rows):
        group = flat[first : first + num_rows]
        start = np.zeros(num_rows, np.int32)
        for number in dict.fromkeys(number for number, _ in group):
            chosen = np.zeros(num_rows, bool)
            chosen[: len(group)] = [other == number for other, _ in group]
            cache = decoder.read(cache, prompts[number], chosen)
            start[chosen] = len(prompts[number].ids)
        found, cache = _score_group(decoder, cache, [part for _, part in group], start, length)
        log_probs += found
    scores = iter(log_probs)
    return [[_split(answer, next(scores)) for answer in some] for some in answers]


def make_part_b(decoder: Decoder, prompt: Prompt, answer: Sequence[Sequence[int]]) -> PartB:
    """The blanks of one text with an answer in each, in the order of the text.

    Every blank starts with sop; the last token of an answer is followed by the first of `ends`.
    """
    part = PartB([], [], [])
    for position, ids in zip(prompt.masks, answer, strict=True):
        part.tokens.extend([decoder.blank_start, *ids])
        part.position_ids.extend((position, step + 1) for step in range(len(ids) + 1))
        part.targets.extend([*ids, decoder.ends[0]])
    return part


def _score_group(
    decoder: Decoder, cache: Cache, parts: Sequence[PartB], start: np.ndarray, length: int
) -> tuple[list[list[float]], Cache]:
    """The log-probability of every target of a batch of Parts B."""
    tokens, targets = np.zeros((2, len(start), length), np.int32)
    position_ids = np.zeros((len(start), 2, length), np.int32)
    for row, part in enumerate(parts):
        size = len(part.tokens)
        tokens[row, :size], targets[row, :size] = part.tokens, part.targets
        position_ids[row, :, :size] = np.transpose(part.position_ids)
    with decoder.on_mesh():
        found, cache = _run_part_b(
            decoder.model, decoder.params, cache, tokens, position_ids, targets, start
        )
    table = np.asarray(found)
    return [table[row, : len(part.tokens)].tolist() for row, part in enumerate(parts)], cache


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def _run_part_b(
    model: DecodingGLM,
    params: PyTree,
    cache: Cache,
    tokens: Int[Array, "B L"],
    position_ids: Int[Array, "B 2 L"],
    targets: Int[Array, "B L"],
    start: Int[Array, "B"],
) -> tuple[Float[Array, "B L"], Cache]:
    num_slots = cache[0].num_slots
    visible = memory_mask(start, tokens.shape[1], num_slots)
    inputs = (tokens, position_ids, cache, start, visible)
    hidden, cache = network(model, params, *inputs, method="extend")

    def at_position(inputs: tuple[Float[Array, "B D"], Int[Array, "B"]]) -> Float[Array, "B"]:
        hidden, target = inputs
        logits = network(model, params, hidden, method="last_logits")
        chosen = jnp.take_along_axis(logits, target[:, None], axis=-1)[:, 0]
        return chosen - jax.nn.logsumexp(logits, axis=-1)

    # One position at a time: the logits of all positions would be larger than the cache.
    by_position = jax.lax.map(at_position, (jnp.swapaxes(hidden, 0, 1), targets.T))
    return by_position.T, cache


def _split(answer: Sequence[Sequence[int]], log_probs: Sequence[float]) -> AnswerScore:
    """The scores of an answer from those of its targets in a row."""
    remaining: Iterator[float] = iter(log_probs)
    return AnswerScore(
        [BlankScore(list(ids), [next(remaining) for _ in ids], next(remaining)) for ids in answer]
    )


def check_answers(
    texts: Sequence[str],
    answers: Sequence[Sequence[str | Sequence[str]]],
    num_blanks: Sequence[int],
) -> list[list[list[str]]]:
    """The answers to every text, each with one string a blank.

    Args:
      texts: for error messages.
      answers: for every text any number of answers: one string where there is one blank, else a
        string for each. A string instead of a list of answers is the only answer of its text.
      num_blanks: of every text.

    Raises:
      UsageError: the numbers do not fit.
    """
    if len(answers) != len(texts):
        raise UsageError(f"there are {len(texts)} texts, but answers for {len(answers)}")
    checked = []
    for text, some, count in zip(texts, answers, num_blanks, strict=True):
        some = [some] if isinstance(some, str) else some
        listed = [[answer] if isinstance(answer, str) else list(answer) for answer in some]
        for answer in listed:
            if len(answer) != count:
                raise UsageError(
                    f"the text {text!r} has {count} blanks, but the answer {answer!r} is for "
                    f"{len(answer)}"
                )
        checked.append(listed)
    return checked
