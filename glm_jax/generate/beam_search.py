"""Beam search over all blanks of several texts, with W beams per text: the compiled program."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

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
from glm_jax.generate.decode import DecodeState, apply_constraints, given_tokens, last_tokens
from glm_jax.generate.decoder import network
from glm_jax.model.decoding import DecodingGLM
from glm_jax.model.kv_cache import Cache
from glm_jax.parallel.layout import constrain, replicate


class Search(NamedTuple):
    """The state of all searches: N texts of W beams each, S blanks.

    Under a mesh, texts are sharded over the axes that shard batches.

    Attributes:
      cache: a row of M slots for each text: its prompt, then W slots for every step.
      used: slots in use of each text.
      rows: the tokens of each beam, N x W rows.
      beams, found: of the blank that is being searched.
      results: the hypotheses of all blanks.
    """

    cache: Cache
    used: Int[Array, "N"]
    rows: DecodeState
    beams: Beams
    found: Hypotheses
    results: Hypotheses  # [N, S, W, ...], without slots


def empty_search(
    cache: Cache, rows: DecodeState, num_beams: int, max_blanks: int, max_tokens: int
) -> Search:
    """The state without texts.

    Args:
      cache: of N rows.
      rows: N x W, at the start of their first blank where they have a text.
      num_beams: W.
      max_blanks: S, of a text.
      max_tokens: T, of a blank.
    """
    num_texts, num_slots = rows.length.shape[0] // num_beams, _num_slots(cache)
    shape = (num_texts, num_beams, max_tokens)
    # The last token, which starts the blank, has not been run.
    used = jnp.maximum(rows.length[::num_beams] - 1, 0)
    seen = jnp.arange(num_slots) < used[:, None, None]
    beams = first_beams(*shape, num_slots)
    return Search(
        cache,
        used,
        rows,
        beams._replace(visible=jnp.broadcast_to(seen, beams.visible.shape)),
        no_hypotheses(*shape, num_slots),
        jax.tree.map(lambda a: jnp.repeat(a[:, None], max_blanks, axis=1), no_hypotheses(*shape)),
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
    per_text = ("used", "beams", "found", "results")
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
        advanced = _step(model, params, search, blank_start, ends, settings)
        return _over_mesh(advanced), steps + 1, active

    start = (_over_mesh(search), jnp.int32(0), jnp.int32(0))
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
    """Advances every unfinished text by one token."""
    num_texts, num_beams = search.beams.total.shape
    texts = _of_texts(search.rows, num_beams)
    active = texts.current < texts.count
    logits, search = _run_last_tokens(model, params, search, active)
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
    closes = active & (done | limit)

    blank = jnp.where(closes, texts.current, search.results.score.shape[1])
    results = jax.tree.map(
        lambda all_, new: all_.at[jnp.arange(num_texts), blank].set(new, mode="drop"),
        search.results,
        found._replace(visible=found.visible[..., :0]),
    )
    tokens = search.rows.tokens.reshape(num_texts, num_beams, -1)
    tokens = jnp.take_along_axis(tokens, parent[..., None], axis=1)
    return _append_tokens(
        search._replace(
            rows=search.rows._replace(tokens=tokens.reshape(search.rows.tokens.shape)),
            beams=beams,
            found=found,
            results=results,
        ),
        active,
        closes,
        blank_start,
    )


def _run_last_tokens(
    model: DecodingGLM, params: PyTree, search: Search, active: Bool[Array, "N"]
) -> tuple[Float[Array, "B V"], Search]:
    """Runs the last token of every beam, each in a slot of its own; B = N x W."""
    num_texts, num_beams, num_slots = search.beams.visible.shape
    start = jnp.where(active, search.used, num_slots)  # beyond the end, nothing is written
    own = start[:, None] + jnp.arange(num_beams)
    visible = search.beams.visible | (jnp.arange(num_slots) == own[..., None])
    tokens, position_ids = last_tokens(search.rows)
    hidden, cache = network(
        model,
        params,
        tokens.reshape(num_texts, num_beams),
        jnp.swapaxes(position_ids.reshape(num_texts, num_beams, 2), 1, 2),
        search.cache,
        start,
        # Texts without work do not extend the part of the cache that is read.
        (visible & active[:, None, None])[:, None],
        method="extend",
    )
    logits = network(model, params, hidden.reshape(num_texts * num_beams, -1), method="last_logits")
    used = search.used + jnp.where(active, num_beams, 0)
    beams = search.beams._replace(visible=visible)
    return logits, search._replace(cache=cache, used=used, beams=beams)


def _append_tokens(
    search: Search, active: Bool[Array, "N"], closes: Bool[Array, "N"], blank_start: Int[Array, ""]
) -> Search:
    """Appends the next token to every row: that of its beam, or the start of the next blank."""
    num_texts, num_beams = search.beams.total.shape
    texts = _of_texts(search.rows, num_beams)
    opens = closes & (texts.current + 1 < texts.count)
    extends = active & ~closes
    # As when tokens are drawn, later blanks do not see the one that reaches the limit.
    known = jnp.minimum(search.found.length[:, 0], texts.settings.max_length - 1)

    # What the rows hold from the first token of the blank on.
    number_in_blank = jnp.arange(texts.tokens.shape[1]) - (texts.length - texts.taken)[:, None]
    best = _at(search.found.tokens[:, 0], number_in_blank)
    best = jnp.where(number_in_blank == known[:, None], blank_start, best)
    opened = (number_in_blank >= 0) & (number_in_blank <= known[:, None]) & opens[:, None]
    newest = _at(search.beams.tokens, texts.taken[:, None, None])
    extended = (number_in_blank == texts.taken[:, None]) & extends[:, None]
    tokens = search.rows.tokens.reshape(num_texts, num_beams, -1)
    tokens = jnp.where(opened[:, None], best[:, None], tokens)
    tokens = jnp.where(extended[:, None], newest, tokens)

    def all_rows(array: Array) -> Array:
        return jnp.repeat(array, num_beams, axis=0)

    length = texts.length + jnp.where(opens, known + 1 - texts.taken, extends)
    rows = search.rows._replace(
        tokens=tokens.reshape(search.rows.tokens.shape),
        length=all_rows(length),
        current=all_rows(texts.current + closes),
        taken=all_rows(jnp.where(extends, texts.taken + 1, 0)),
    )
    max_tokens, num_slots = search.beams.tokens.shape[2], search.beams.visible.shape[2]
    first = first_beams(num_texts, num_beams, max_tokens, num_slots)
    seen = jnp.broadcast_to(search.found.visible[:, :1], first.visible.shape)
    fresh = first._replace(visible=seen), no_hypotheses(num_texts, num_beams, max_tokens, num_slots)
    beams, found = _where(opens, fresh, (search.beams, search.found))
    return search._replace(rows=rows, beams=beams, found=found)


def _over_mesh(search: Search) -> Search:
    """Constrains everything to be sharded by texts; the cache is where it is written."""

    def by_text(array: Array) -> Array:
        return constrain(array, ("batch", *("replicated",) * (array.ndim - 1)))

    return jax.tree.map(by_text, search._replace(cache=()))._replace(cache=search.cache)


def _num_slots(cache: Cache) -> int:
    return cache[0].num_slots


def _of_texts(rows: DecodeState, num_beams: int) -> DecodeState:
    """What the rows of each text have in common, from the first of them."""
    return jax.tree.map(lambda array: array[::num_beams], rows)


def _at(array: Int[Array, "*N T"], index: Int[Array, "*#N I"]) -> Int[Array, "*N I"]:
    """The entries at some indices of the last axis, those beyond its ends at the last ones."""
    return jnp.take_along_axis(array, jnp.clip(index, 0, array.shape[-1] - 1), axis=-1)


def _where(texts: Bool[Array, "N"], new: PyTree, old: PyTree) -> PyTree:
    """`new` for some texts, `old` for the others."""

    def choose(new: Array, old: Array) -> Array:
        return jnp.where(texts.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

    return jax.tree.map(choose, new, old)
