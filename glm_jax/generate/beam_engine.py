"""Beam search for many texts: free rows are given to the next ones while others are searched."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.generate.beam_search import empty_search, run_searches
from glm_jax.generate.beam_step import BeamSettings, Hypotheses
from glm_jax.generate.decoder import Decoder, cache_size, power_of_two
from glm_jax.generate.engine import (
    FilledBlank,
    empty_decode_state,
    put_settings,
    put_text,
    slots_needed,
)
from glm_jax.generate.prompt import Prompt
from glm_jax.generate.settings import Sampling


class FoundBlank(NamedTuple):
    """One hypothesis for a blank, and its score."""

    blank: FilledBlank
    score: float


FirstLength = int | Callable[[Prompt], int]
"""The length that hypotheses have before their first token, of all texts or by the prompt."""


@dataclass
class BeamUsage:
    """What a search did, to see how much of it was wasted.

    Attributes:
      prompt_tokens, padded_prompt_tokens: that were read, without and with padding.
      active_texts, text_slots: sums over steps of the texts with work left, and of all slots.
      read_seconds, step_seconds: time of both.
    """

    prompt_tokens: int = 0
    padded_prompt_tokens: int = 0
    active_texts: int = 0
    text_slots: int = 0
    read_seconds: float = 0.0
    step_seconds: float = 0.0

    @property
    def padding_share(self) -> float:
        """Share of the prompt tokens read that are padding, or of rows without a text."""
        return 1 - self.prompt_tokens / max(self.padded_prompt_tokens, self.prompt_tokens, 1)

    @property
    def idle_share(self) -> float:
        """Share of the slots without work, over all steps."""
        return 1 - self.active_texts / max(self.text_slots, self.active_texts, 1)

    @property
    def wasted_share(self) -> float:
        """Share of the time that went into padding and rows without work."""
        total = self.read_seconds + self.step_seconds
        if not total:
            return 0.0
        wasted = self.read_seconds * self.padding_share + self.step_seconds * self.idle_share
        return wasted / total


class BeamEngine:
    """A batch of N texts with W beams each; the settings are those of all texts."""

    def __init__(
        self,
        decoder: Decoder,
        sampling: Sampling,
        prompts: Sequence[Prompt],
        *,
        num_texts: int,
        first_length: FirstLength = 1,
    ):
        """Allocates the cache.

        Args:
          decoder: the network.
          sampling: `beams`, `length_penalty` and the limits of a blank.
          prompts: all that it may be given, or ones as long and with as many blanks.
          num_texts: N; rounded up to a multiple of the shards of the mesh.
          first_length: see `BeamSettings`; of each text, or of all.
        """
        self._decoder, self._sampling = decoder, sampling
        num_texts = -(-num_texts // decoder.num_shards) * decoder.num_shards
        self._first_length, self._first_lengths = first_length, np.zeros(num_texts, np.int32)
        self._texts: list[int | None] = [None] * num_texts
        self._prompts: dict[int, Prompt] = {}
        self._is_new = np.zeros(num_texts, bool)
        self._settings = BeamSettings(
            jnp.float32(sampling.length_penalty),
            jnp.bool_(sampling.early_stopping),
            jnp.zeros(num_texts, jnp.int32),
        )
        longest = sampling.max_blank_length
        num_tokens = max((slots_needed(prompt, longest) for prompt in prompts), default=0)
        num_slots = max(
            (
                len(p.ids) + len(p.written) + len(p.masks) * longest * sampling.beams
                for p in prompts
            ),
            default=0,
        )
        self._rows = empty_decode_state(num_texts * sampling.beams, cache_size(num_tokens))
        with decoder.on_mesh():
            self._search = empty_search(
                decoder.new_cache(num_texts, num_slots),
                self._rows,
                sampling.beams,
                power_of_two(max((len(prompt.masks) for prompt in prompts), default=1)),
                power_of_two(longest),
            )
        self.usage = BeamUsage()

    @property
    def num_free(self) -> int:
        """Slots without a text."""
        return sum(text is None for text in self._texts)

    @property
    def num_active(self) -> int:
        """Slots with a text."""
        return len(self._texts) - self.num_free

    @property
    def num_refilled(self) -> int:
        """How many texts are read together while others are searched.

        As many as the mesh reads at once, but no more than a quarter of the slots, which wait.
        """
        return min(self._decoder.num_shards, max(len(self._texts) // 4, 1))

    def start(self, texts: Sequence[tuple[int, Prompt]]) -> None:
        """Reads texts into free slots.

        Args:
          texts: no more than there are free slots; each with the number that its results are given
            back with.
        """
        free = [slot for slot, text in enumerate(self._texts) if text is None]
        at_once = self._decoder.num_shards
        for first in range(0, len(texts), at_once):
            group = texts[first : first + at_once]
            self._read(group, free[first : first + len(group)])

    def _read(self, texts: Sequence[tuple[int, Prompt]], slots: Sequence[int]) -> None:
        """Reads texts into slots, one on each device."""
        start = time.perf_counter()
        cache = self._decoder.read_texts(self._search.cache, [prompt for _, prompt in texts], slots)
        jax.block_until_ready(cache)
        self.usage.read_seconds += time.perf_counter() - start
        self._search = self._search._replace(cache=cache)
        beams, first = self._sampling.beams, self._first_length
        for (text, prompt), slot in zip(texts, slots, strict=True):
            for row in range(slot * beams, (slot + 1) * beams):
                put_text(self._rows, row, prompt, self._decoder.blank_start)
                put_settings(self._rows.settings, row, self._sampling, 0)
            self._texts[slot], self._prompts[text] = text, prompt
            self._is_new[slot] = True
            self._first_lengths[slot] = first if isinstance(first, int) else first(prompt)
            self.usage.prompt_tokens += len(prompt.ids)
        longest = max(len(prompt.ids) for _, prompt in texts)
        self.usage.padded_prompt_tokens += self._decoder.padded_size(longest) * (
            self._decoder.num_shards
        )

    def advance(self, num_ended: int) -> Iterator[tuple[int, list[list[FoundBlank]]]]:
        """Runs until some texts are filled; yields those that are.

        Args:
          num_ended: how many, at least 1; all if there are fewer.

        Yields:
          The text's number, and for every blank the complete hypotheses, the best first.
        """
        start = time.perf_counter()
        with self._decoder.on_mesh():
            self._search, steps, active = run_searches(
                self._decoder.model,
                self._decoder.params,
                self._search._replace(rows=self._rows),
                self._is_new,
                np.int32(self._decoder.blank_start),
                np.asarray(self._decoder.ends, np.int32),
                self._settings._replace(first_length=jnp.asarray(self._first_lengths)),
                np.int32(max(self.num_active - num_ended + 1, 1)),
            )
        # Arrays from devices may not be written to.
        self._rows = jax.tree.map(np.array, jax.device_get(self._search.rows))
        self._is_new[:] = False
        results = jax.device_get(self._search.results)
        self.usage.step_seconds += time.perf_counter() - start
        self.usage.active_texts += int(active)
        self.usage.text_slots += int(steps) * len(self._texts)
        beams = self._sampling.beams
        for slot, text in enumerate(self._texts):
            row = slot * beams
            if text is None or self._rows.current[row] < self._rows.count[row]:
                continue
            self._texts[slot] = None
            count = len(self._prompts.pop(text).masks)
            self._rows.count[row : row + beams] = self._rows.current[row : row + beams] = 0
            yield text, [_read_hypotheses(results, slot, blank) for blank in range(count)]


def beam_search(
    decoder: Decoder,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    num_texts: int,
    first_length: FirstLength = 1,
) -> list[list[list[FoundBlank]]]:
    """Fills the blanks of texts by beam search, from left to right, each from the best before it.

    Args:
      decoder: the network.
      prompts: Part A of the texts.
      sampling: `beams`, `length_penalty` and the limits of a blank.
      num_texts: texts at a time.
      first_length: see `BeamSettings`; of each text, or of all.

    Returns:
      For every text and blank the complete hypotheses, the best first; never more than beams.
    """
    found: list[list[list[FoundBlank]]] = [[] for _ in prompts]
    engine = BeamEngine(decoder, sampling, prompts, num_texts=num_texts, first_length=first_length)
    for text, blanks in search_all(engine, enumerate(prompts)):
        found[text] = blanks
    return found


def search_all(
    engine: BeamEngine, prompts: Iterable[tuple[int, Prompt]]
) -> Iterator[tuple[int, list[list[FoundBlank]]]]:
    """Searches the blanks of numbered texts, in the engine's batches; yields as they are found."""
    waiting = deque(prompts)
    while waiting or engine.num_active:
        engine.start([waiting.popleft() for _ in range(min(engine.num_free, len(waiting)))])
        refilled = min(engine.num_refilled, len(waiting))
        yield from engine.advance(max(refilled, 1))


def _read_hypotheses(results: Hypotheses, text: int, blank: int) -> list[FoundBlank]:
    found = []
    fields = (results.score, results.length, results.ended, results.tokens, results.log_probs)
    for score, length, ended, tokens, log_probs in zip(
        *(np.asarray(array[text, blank]) for array in fields), strict=True
    ):
        if not np.isfinite(score):
            continue
        end = float(log_probs[length]) if ended else None
        filled = FilledBlank(tokens[:length].tolist(), log_probs[:length].tolist(), end)
        found.append(FoundBlank(filled, float(score)))
    return found
