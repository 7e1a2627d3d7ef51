"""Beam search over all blanks of several texts, with W rows per text: the compiled program."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
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
from glm_jax.generate.decode import DecodeState, apply_constraints, given_tokens, next_logits
from glm_jax.model.decoding import DecodingGLM
from glm_jax.model.kv_cache import PAGE_SIZE, Cache, reorder
from glm_jax.parallel.layout import replicate


class Search(NamedTuple):
    """The state of all searches: N texts of W rows each, S blanks."""

    cache: Cache
    rows: DecodeState
    beams: Beams
    found: Hypotheses
    forced: Bool[Array, "N"]  # whether the best hypothesis is being run, for the next blank
    results: Hypotheses  # [N, S, W, ...]


def empty_search(
    cache: Cache, rows: DecodeState, num_beams: int, max_blanks: int, max_tokens: int
) -> Search:
    """The state without texts.

    Args:
      cache, rows: of N x W rows.
      num_beams: W.
      max_blanks: S, of a text.
      max_tokens: T, of a blank.
    """
    num_texts = rows.length.shape[0] // num_beams
    found = no_hypotheses(num_texts, num_beams, max_tokens)
    return Search(
        cache,
        rows,
        first_beams(num_texts, num_beams, max_tokens),
        found,
        jnp.zeros(num_texts, bool),
        jax.tree.map(lambda a: jnp.repeat(a[:, None], max_blanks, axis=1), found),
    )


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def run_searches(
    model: DecodingGLM,
    params: PyTree,
    search: Search,
    is_new: Bool[Array, "N"],
    blank_start: Int[Array, ""],
    ends: Int[Array, "E"],
    settings: BeamSettings,
    min_active: Int[Array, ""],
) -> tuple[Search, Int[Array, ""], Int[Array, ""]]:
    """Steps until fewer than `min_active` texts have work left.

    Args:
      model, params: the network.
      search: the state; it is donated.
      is_new: texts that were put into their rows since the last call.
      blank_start: the token that starts every blank.
      ends: tokens that end a blank.
      settings: of all searches.
      min_active: at least 1.

    Returns:
      The state, the number of steps, and the sum over steps of the texts with work left.
    """
    num_beams = search.beams.total.shape[1]
    max_blanks, max_tokens = search.results.tokens.shape[1], search.results.tokens.shape[3]
    fresh = empty_search(search.cache, search.rows, num_beams, max_blanks, max_tokens)
    per_text = ("beams", "found", "forced", "results")
    search = search._replace(
        **{name: _where(is_new, getattr(fresh, name), getattr(search, name)) for name in per_text}
    )

    def num_active(search: Search) -> Int[Array, ""]:
        texts = _of_texts(search.rows, num_beams)
        return jnp.sum(texts.current < texts.count)

    def should_continue(state: tuple) -> Bool[Array, ""]:
        return num_active(state[0]) >= min_active

    def step(state: tuple) -> tuple:
        search, steps, active = state
        active += num_active(search)
        return _step(model, params, search, blank_start, ends, settings), steps + 1, active

    start = (search, jnp.int32(0), jnp.int32(0))
    search, steps, active = jax.lax.while_loop(should_continue, step, start)
    # Every process reads these.
    rows, results = replicate((search.rows, search.results))
    return search._replace(rows=rows, results=results), steps, active


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
    first = search.rows.length - search.rows.taken - given_tokens(search.rows)
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
