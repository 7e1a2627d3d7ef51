"""Beam search for many texts: free rows are given to the next ones while others are searched."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
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
    def wasted_share(self) -> float:
        """Share of the time that went into padding and rows without work."""
        total = self.read_seconds + self.step_seconds
        if not total:
            return 0.0
        padding = 1 - self.prompt_tokens / max(self.padded_prompt_tokens, 1)
        idle = 1 - self.active_texts / max(self.text_slots, 1)
        return (self.read_seconds * padding + self.step_seconds * idle) / total


class BeamEngine:
    """A batch of N texts with W rows each; the settings are those of all texts."""

    def __init__(
        self,
        decoder: Decoder,
        sampling: Sampling,
        *,
        num_texts: int,
        num_slots: int,
        max_blanks: int,
        first_length: int = 1,
    ):
        """Allocates the cache.

        Args:
          decoder: the network.
          sampling: `beams`, `length_penalty` and the limits of a blank.
          num_texts: N.
          num_slots: the maximum that a text may need, see `slots_needed`.
          max_blanks: that a text may have.
          first_length: see `BeamSettings`.
        """
        self._decoder, self._sampling = decoder, sampling
        self._texts: list[int | None] = [None] * num_texts
        self._prompts: dict[int, Prompt] = {}
        self._is_new = np.zeros(num_texts, bool)
        self._settings = BeamSettings(
            jnp.float32(sampling.length_penalty),
            jnp.bool_(sampling.early_stopping),
            jnp.int32(first_length),
        )
        num_rows = num_texts * sampling.beams
        self._rows = empty_decode_state(num_rows, cache_size(num_slots))
        with decoder.on_mesh():
            self._search = empty_search(
                decoder.new_cache(num_rows, num_slots),
                self._rows,
                sampling.beams,
                max_blanks,
                power_of_two(sampling.max_blank_length),
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

    def start(self, text: int, prompt: Prompt) -> None:
        """Reads a text into the rows of a free slot.

        Args:
          text: what its results are given back with.
          prompt: its Part A.
        """
        slot, beams = self._texts.index(None), self._sampling.beams
        chosen = np.zeros(len(self._texts) * beams, bool)
        chosen[slot * beams : (slot + 1) * beams] = True
        start = time.perf_counter()
        cache = self._decoder.read(self._search.cache, prompt, chosen)
        jax.block_until_ready(cache)
        self.usage.read_seconds += time.perf_counter() - start
        self._search = self._search._replace(cache=cache)
        for row in np.flatnonzero(chosen):
            put_text(self._rows, int(row), prompt, self._decoder.blank_start)
            put_settings(self._rows.settings, int(row), self._sampling, 0)
        self._texts[slot], self._prompts[text] = text, prompt
        self._is_new[slot] = True
        self.usage.prompt_tokens += len(prompt.ids)
        self.usage.padded_prompt_tokens += self._decoder.padded_size(len(prompt.ids))

    def advance(
        self, *, until_one_ends: bool = False
    ) -> Iterator[tuple[int, list[list[FoundBlank]]]]:
        """Runs until all texts are filled, or the first one is; yields those that are.

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
                self._settings,
                np.int32(self.num_active if until_one_ends else 1),
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
    first_length: int = 1,
) -> list[list[list[FoundBlank]]]:
    """Fills the blanks of texts by beam search, from left to right, each from the best before it.

    Args:
      decoder: the network.
      prompts: Part A of the texts.
      sampling: `beams`, `length_penalty` and the limits of a blank.
      num_texts: texts at a time.
      first_length: see `BeamSettings`.

    Returns:
      For every text and blank the complete hypotheses, the best first; never more than beams.
    """
    found: list[list[list[FoundBlank]]] = [[] for _ in prompts]
    engine = BeamEngine(
        decoder,
        sampling,
        num_texts=num_texts,
        num_slots=max((slots_needed(p, sampling.max_blank_length) for p in prompts), default=0),
        max_blanks=power_of_two(max((len(prompt.masks) for prompt in prompts), default=1)),
        first_length=first_length,
    )
    for text, blanks in search_all(engine, enumerate(prompts)):
        found[text] = blanks
    return found


def search_all(
    engine: BeamEngine, prompts: Iterable[tuple[int, Prompt]]
) -> Iterator[tuple[int, list[list[FoundBlank]]]]:
    """Searches the blanks of numbered texts, in the engine's batches; yields as they are found."""
    waiting = deque(prompts)
    while waiting or engine.num_active:
        while waiting and engine.num_free:
            engine.start(*waiting.popleft())
        yield from engine.advance(until_one_ends=bool(waiting))


def _read_hypotheses(results: Hypotheses, text: int, blank: int) -> list[FoundBlank]:
    found = []
    for score, length, ended, tokens, log_probs in zip(
        *(np.asarray(array[text, blank]) for array in results), strict=True
    ):
        if not np.isfinite(score):
            continue
        end = float(log_probs[length]) if ended else None
        filled = FilledBlank(tokens[:length].tolist(), log_probs[:length].tolist(), end)
        found.append(FoundBlank(filled, float(score)))
    return found
