"""Beam search over all blanks of several texts, with W rows per text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree

from glm_jax.generate.beam_step import (
    Beams,
    BeamSettings,
    Hypotheses,
    best_candidates,
    close_search,
    first_beams,
    no_hypotheses,
    search_step,
)
from glm_jax.generate.decode import DecodeState, apply_constraints, next_logits
from glm_jax.generate.decoder import Decoder, power_of_two
from glm_jax.generate.engine import (
    FilledBlank,
    empty_decode_state,
    put_settings,
    put_text,
    slots_needed,
)
from glm_jax.generate.prompt import Prompt
from glm_jax.generate.settings import Sampling
from glm_jax.model.decoding import DecodingGLM
from glm_jax.model.kv_cache import PAGE_SIZE, Cache, reorder


class FoundBlank(NamedTuple):
    """One hypothesis for a blank, and its score."""

    blank: FilledBlank
    score: float


class Search(NamedTuple):
    """The state of all searches: N texts of W rows each, S blanks."""

    cache: Cache
    rows: DecodeState
    beams: Beams
    found: Hypotheses
    forced: Bool[Array, "N"]  # whether the best hypothesis is being run, for the next blank
    results: Hypotheses  # [N, S, W, ...]


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
    found: list[list[list[FoundBlank]]] = []
    max_blanks = power_of_two(max((len(prompt.masks) for prompt in prompts), default=1))
    num_slots = max((slots_needed(p, sampling.max_blank_length) for p in prompts), default=0)
    for first in range(0, len(prompts), num_texts):
        group = prompts[first : first + num_texts]
        results = _search_group(
            decoder, group, sampling, num_texts, num_slots, max_blanks, first_length
        )
        found += [
            [_read_hypotheses(results, text, blank) for blank in range(len(prompt.masks))]
            for text, prompt in enumerate(group)
        ]
    return found


def _search_group(
    decoder: Decoder,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    num_texts: int,
    num_slots: int,
    max_blanks: int,
    first_length: int,
) -> Hypotheses:
    num_rows = num_texts * sampling.beams
    cache = decoder.new_cache(num_rows, num_slots)
    rows = empty_decode_state(num_rows, cache[0].key.shape[0] * PAGE_SIZE)
    for text, prompt in enumerate(prompts):
        chosen = np.zeros(num_rows, bool)
        chosen[text * sampling.beams : (text + 1) * sampling.beams] = True
        cache = decoder.read(cache, prompt.ids, chosen)
        for row in np.flatnonzero(chosen):
            put_text(rows, int(row), prompt, decoder.blank_start)
            put_settings(rows.settings, int(row), sampling, 0)
    settings = BeamSettings(
        jnp.float32(sampling.length_penalty),
        jnp.bool_(sampling.early_stopping),
        jnp.int32(first_length),
    )
    with decoder.on_mesh():
        results, _ = _run_searches(
            decoder.model,
            (sampling.beams, max_blanks, power_of_two(sampling.max_blank_length)),
            decoder.params,
            cache,
            rows,
            np.int32(decoder.blank_start),
            np.asarray(decoder.ends, np.int32),
            settings,
        )
    return jax.device_get(results)


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


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def _run_searches(
    model: DecodingGLM,
    sizes: tuple[int, int, int],
    params: PyTree,
    cache: Cache,
    rows: DecodeState,
    blank_start: Int[Array, ""],
    ends: Int[Array, "E"],
    settings: BeamSettings,
) -> tuple[Hypotheses, Cache]:
    """Steps until all blanks of all texts are filled."""
    num_beams, max_blanks, max_tokens = sizes
    num_texts = rows.length.shape[0] // num_beams
    found = no_hypotheses(num_texts, num_beams, max_tokens)
    results = jax.tree.map(lambda a: jnp.repeat(a[:, None], max_blanks, axis=1), found)
    start = Search(
        cache,
        jax.tree.map(jnp.asarray, rows),
        first_beams(num_texts, num_beams, max_tokens),
        found,
        jnp.zeros(num_texts, bool),
        results,
    )

    def step(search: Search) -> Search:
        return _step(model, params, search, blank_start, ends, settings)

    def should_continue(search: Search) -> Bool[Array, ""]:
        return jnp.any(search.rows.current < search.rows.count)

    end = jax.lax.while_loop(should_continue, step, start)
    return end.results, end.cache  # in the memory of the donated cache


def _step(
    model: DecodingGLM,
    params: PyTree,
    search: Search,
    blank_start: Int[Array, ""],
    ends: Int[Array, "E"],
    settings: BeamSettings,
) -> Search:
    """Advances every unfinished text by one token, either searched or of the best hypothesis."""
    num_texts, num_beams = search.beams.total.shape
    texts = _of_texts(search.rows, num_beams)
    searches = (texts.current < texts.count) & ~search.forced

    logits, cache = next_logits(model, params, search.cache, search.rows)
    first = search.rows.length - search.rows.taken
    scores = apply_constraints(jax.nn.log_softmax(logits, axis=-1), search.rows, first, ends)
    scores = scores.reshape(num_texts, num_beams, -1)
    count = num_beams * (1 + ends.shape[0])  # enough that W of them are not end tokens
    candidates = best_candidates(scores, search.beams.total, count)
    flat = candidates.beam * scores.shape[2] + candidates.token
    log_prob = jnp.take_along_axis(scores.reshape(num_texts, -1), flat, axis=1)
    beams, found, parent, done = search_step(
        search.beams, search.found, candidates, log_prob, texts.taken, ends, settings
    )
    limit = texts.taken + 1 >= texts.settings.max_length
    found = _where(limit & ~done, close_search(beams, found, texts.taken + 1, settings), found)
    beams, found = _where(searches, (beams, found), (search.beams, search.found))
    closes = searches & (done | limit)

    own = jnp.arange(num_texts * num_beams).reshape(num_texts, num_beams)
    from_row = jnp.where(searches[:, None], own[:, :1] + parent, own).reshape(-1)
    blank = jnp.where(closes, texts.current, search.results.score.shape[1])
    results = jax.tree.map(
        lambda all_, new: all_.at[jnp.arange(num_texts), blank].set(new, mode="drop"),
        search.results,
        found,
    )
    moved = search._replace(
        cache=_reorder_cache(cache, from_row, texts, searches),
        rows=search.rows._replace(tokens=search.rows.tokens[from_row]),
        beams=beams,
        found=found,
        results=results,
    )
    return _append_tokens(moved, closes, blank_start)


def _append_tokens(search: Search, closes: Bool[Array, "N"], blank_start: Int[Array, ""]) -> Search:
    """Appends the next input token to every row, and advances texts to their next blank."""
    num_texts, num_beams = search.beams.total.shape
    texts = _of_texts(search.rows, num_beams)
    active = texts.current < texts.count
    # A blank that is filled is run once more with its best hypothesis, unless it is the last one.
    resets = closes & (texts.current + 1 < texts.count)
    extends = active & ~search.forced & ~closes
    # As when tokens are drawn, later blanks do not see the one that reaches the limit.
    known = jnp.minimum(search.found.length[:, 0], texts.settings.max_length - 1)
    repeats = active & search.forced & (texts.taken < known)
    opens = active & search.forced & ~repeats

    index = jnp.minimum(texts.taken, search.beams.tokens.shape[2] - 1)
    newest = jnp.take_along_axis(search.beams.tokens, index[:, None, None], axis=2)[..., 0]
    best = jnp.take_along_axis(search.found.tokens[:, 0], index[:, None], axis=1)
    token = jnp.where(
        opens[:, None], blank_start, jnp.where(repeats[:, None], best, newest)
    ).reshape(-1)
    appends = extends | repeats | opens
    end = jnp.where(appends, texts.length, search.rows.tokens.shape[1])
    row = jnp.arange(num_texts * num_beams)

    def all_rows(array: Array) -> Array:
        return jnp.repeat(array, num_beams, axis=0)

    taken = jnp.where(extends | repeats, texts.taken + 1, 0)
    rows = search.rows._replace(
        tokens=search.rows.tokens.at[row, all_rows(end)].set(token, mode="drop"),
        length=all_rows(texts.length + appends - jnp.where(resets, texts.taken, 0)),
        current=all_rows(texts.current + (opens | (closes & ~resets))),
        taken=all_rows(taken),
    )
    max_tokens = search.beams.tokens.shape[2]
    fresh = (
        first_beams(num_texts, num_beams, max_tokens),
        no_hypotheses(num_texts, num_beams, max_tokens),
    )
    beams, found = _where(opens, fresh, (search.beams, search.found))
    forced = (search.forced | resets) & ~opens
    return search._replace(rows=rows, beams=beams, found=found, forced=forced)


def _of_texts(rows: DecodeState, num_beams: int) -> DecodeState:
    """What the rows of each text have in common, from the first of them."""
    return jax.tree.map(lambda array: array[::num_beams], rows)


def _reorder_cache(
    cache: Cache, from_row: Int[Array, "B"], texts: DecodeState, searches: Bool[Array, "N"]
) -> Cache:
    """Reorders the rows of the cache, in the pages that the rows of a text do not share."""
    start = jnp.where(searches, texts.length - texts.taken - 1, texts.tokens.shape[1])
    end = jnp.where(searches, texts.length, 0)
    return reorder(
        cache, from_row, jnp.min(start) // PAGE_SIZE, (jnp.max(end) + PAGE_SIZE - 1) // PAGE_SIZE
    )


def _where(texts: Bool[Array, "N"], new: PyTree, old: PyTree) -> PyTree:
    """`new` for some texts, `old` for the others."""

    def choose(new: Array, old: Array) -> Array:
        return jnp.where(texts.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

    return jax.tree.map(choose, new, old)
