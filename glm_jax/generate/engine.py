"""Continuous batching: texts are assigned to free rows of a batch and decoded together."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from glm_jax.generate.decode import MAX_STEPS, DecodeState, Emitted, RowSettings, run_rows
from glm_jax.generate.decoder import Decoder, cache_size
from glm_jax.generate.prompt import Prompt
from glm_jax.generate.settings import Sampling


class TopToken(NamedTuple):
    """One of the most probable tokens at a position."""

    id: int
    log_prob: float


@dataclasses.dataclass
class FilledBlank:
    """One blank, as far as it is filled.

    Attributes:
      ids: its tokens, without its start and end tokens.
      log_probs: the log-probability of each under the network, before sampling changed it.
      end_log_prob: of the token that ended it; None while it is open, or if it reached its limit.
      top: the most probable tokens at each position, its end included, if they were requested.
    """

    ids: list[int] = dataclasses.field(default_factory=list)
    log_probs: list[float] = dataclasses.field(default_factory=list)
    end_log_prob: float | None = None
    top: list[list[TopToken]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(eq=False)
class ActiveFill:
    """One text that is being filled, once.

    Attributes:
      prompt: its Part A.
      sampling: how to fill it; drawn, not searched for with beams.
      sample: which of several samples this is.
      blanks: those filled, and the one that is being filled.
    """

    prompt: Prompt
    sampling: Sampling
    sample: int = 0
    blanks: list[FilledBlank] = dataclasses.field(default_factory=list)


class TokenEvent(NamedTuple):
    """One token of one text.

    Attributes:
      active: the text, already up to date with all tokens of the same call.
      blank: which blank it belongs to.
      token: the token; None where the blank ends instead.
      log_prob: the log-probability of the token, or of the end.
      closes: whether the blank is filled.
    """

    active: ActiveFill
    blank: int
    token: int | None
    log_prob: float
    closes: bool


def slots_needed(prompt: Prompt, max_blank_length: int) -> int:
    """Maximum slots of a text: Part A, and for every blank its start token and its tokens."""
    given = len(prompt.ids) + len(prompt.written)
    return given + len(prompt.masks) * (max_blank_length + 1)


class Engine:
    """A batch of rows of fixed size, each with a text in it or free."""

    def __init__(self, decoder: Decoder, *, num_rows: int, num_slots: int, num_top: int = 0):
        """Allocates the cache.

        Args:
          decoder: the network.
          num_rows: texts at a time.
          num_slots: the maximum that a text may need, see `slots_needed`.
          num_top: number of most probable tokens reported at every position.
        """
        self._decoder = decoder
        self._num_top = num_top
        self.num_slots = cache_size(num_slots)
        self._cache = decoder.new_cache(num_rows, self.num_slots)
        self._rows = empty_decode_state(num_rows, self.num_slots)
        self._fills: list[ActiveFill | None] = [None] * num_rows

    @property
    def num_free(self) -> int:
        """Rows without a text."""
        return sum(active is None for active in self._fills)

    @property
    def num_active(self) -> int:
        """Rows with a text."""
        return len(self._fills) - self.num_free

    def start(self, fills: Sequence[ActiveFill]) -> None:
        """Puts texts with the same Part A into free rows; it is read once for all.

        Args:
          fills: no more than there are free rows.
        """
        free = [row for row, active in enumerate(self._fills) if active is None]
        chosen = np.zeros(len(self._fills), bool)
        chosen[free[: len(fills)]] = True
        self._cache = self._decoder.read(self._cache, fills[0].prompt, chosen)
        for row, active in zip(free, fills, strict=False):
            self._fills[row] = active
            active.blanks.append(FilledBlank())
            put_text(self._rows, row, active.prompt, self._decoder.blank_start)
            put_settings(self._rows.settings, row, active.sampling, active.sample)

    def stop(self, active: ActiveFill) -> None:
        """Frees the row of a text whose result is no longer needed."""
        for row, other in enumerate(self._fills):
            if other is active:
                self._free(row)

    def advance(self, steps: int = MAX_STEPS, *, until_one_ends: bool = False) -> list[TokenEvent]:
        """Runs some steps and returns their tokens, in order.

        Args:
          steps: at most `MAX_STEPS`; fewer are run if all texts are filled earlier.
          until_one_ends: return as soon as one text is filled.
        """
        min_active = self.num_active if until_one_ends else 1
        with self._decoder.on_mesh():
            self._cache, rows, num_steps, emitted = run_rows(
                self._decoder.model,
                self._num_top,
                self._decoder.params,
                self._cache,
                self._rows,
                np.int32(self._decoder.blank_start),
                np.asarray(self._decoder.ends, np.int32),
                np.int32(min(steps, MAX_STEPS)),
                np.int32(min_active),
            )
        # Arrays from devices may not be written to.
        self._rows = jax.tree.map(np.array, jax.device_get(rows))
        emitted = jax.device_get(emitted)
        events = []
        for step in range(int(num_steps)):
            now = jax.tree.map(lambda array, step=step: array[step], emitted)
            for row in np.flatnonzero(now.kept | now.closes).tolist():
                events.append(self._record(row, Emitted(*(array[row] for array in now))))
        return events

    def _record(self, row: int, now: Emitted) -> TokenEvent:
        """Adds the output of a step for a row to its text."""
        active = self._fills[row]
        assert active is not None
        number = len(active.blanks) - 1
        blank = active.blanks[number]
        if self._num_top:
            pairs = zip(now.top_tokens.tolist(), now.top_log_probs.tolist(), strict=True)
            blank.top.append([TopToken(*pair) for pair in pairs])
        if now.kept:
            blank.ids.append(int(now.token))
            blank.log_probs.append(float(now.log_prob))
        else:
            blank.end_log_prob = float(now.log_prob)
        if now.closes:
            if number + 1 == len(active.prompt.masks):
                self._free(row)
            else:
                active.blanks.append(FilledBlank())
        token = int(now.token) if now.kept else None
        return TokenEvent(active, number, token, float(now.log_prob), bool(now.closes))

    def _free(self, row: int) -> None:
        self._fills[row] = None
        self._rows.count[row] = self._rows.current[row] = 0


def fill_all(decoder: Decoder, fills: Sequence[ActiveFill], num_rows: int) -> None:
    """Fills texts, `num_rows` at a time.

    Args:
      decoder: the network.
      fills: the texts; adjacent ones with the same prompt share its prefill.
      num_rows: rows of the batch.
    """
    if not fills:
        return
    num_slots = max(slots_needed(f.prompt, f.sampling.max_blank_length) for f in fills)
    engine = Engine(decoder, num_rows=num_rows, num_slots=num_slots)
    waiting = deque(fills)
    while waiting or engine.num_active:
        while waiting and engine.num_free:
            engine.start(_same_prompt(waiting, engine.num_free))
        engine.advance(until_one_ends=bool(waiting))


def _same_prompt(waiting: deque[ActiveFill], max_fills: int) -> list[ActiveFill]:
    """Takes the first text and those after it that have the same Part A."""
    taken = [waiting.popleft()]
    while waiting and len(taken) < max_fills and waiting[0].prompt is taken[0].prompt:
        taken.append(waiting.popleft())
    return taken


def empty_decode_state(num_rows: int, num_slots: int) -> DecodeState:
    """Rows without texts, in arrays of the host that can be written to."""

    def zeros(*more: int, dtype: Any = np.int32) -> Any:
        return np.zeros((num_rows, *more), dtype)

    settings = RowSettings(
        temperature=zeros(dtype=np.float32),
        top_k=zeros(),
        top_p=zeros(dtype=np.float32),
        min_length=zeros(),
        max_length=zeros(),
        ngram=zeros(),
        whole_text=zeros(dtype=bool),
        key=zeros(2, dtype=np.uint32),
    )
    return DecodeState(
        tokens=zeros(num_slots),
        length=zeros(),
        mask_positions=zeros(num_slots),
        count=zeros(),
        current=zeros(),
        taken=zeros(),
        written=zeros(),
        position_step=zeros(),
        settings=settings,
    )


def put_text(rows: DecodeState, row: int, prompt: Prompt, blank_start: int) -> None:
    """Writes a text into a row, at the start of its first blank."""
    ids, count = [*prompt.ids, blank_start, *prompt.written], len(prompt.masks)
    rows.tokens[row, : len(ids)] = ids
    rows.mask_positions[row, :count] = prompt.masks
    rows.length[row], rows.count[row] = len(ids), count
    rows.written[row], rows.position_step[row] = len(prompt.written), prompt.position_step
    rows.current[row] = rows.taken[row] = 0


def put_settings(settings: RowSettings, row: int, sampling: Sampling, sample: int) -> None:
    """Writes the sampling settings of a text into a row."""
    settings.temperature[row] = sampling.used_temperature
    settings.top_k[row] = sampling.top_k
    settings.top_p[row] = sampling.top_p
    settings.min_length[row] = sampling.min_blank_length
    settings.max_length[row] = sampling.max_blank_length
    settings.ngram[row] = sampling.no_repeat_ngram
    settings.whole_text[row] = sampling.repeat_scope == "text"
    settings.key[row] = sampling.seed, sample
