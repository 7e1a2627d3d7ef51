"""Beam search for the blanks of several texts at once.

The beams of a text share one row of the key/value cache. Every token that is run stays in its slot,
and a beam has the set of slots that it sees: those of the prompt, of the best hypotheses of earlier
blanks, and of its own tokens. So nothing is copied when beams change their order, and the prompt is
read once for all beams of a text.

Source: original code, `BeamSearchScorer`, which follows Hugging Face's of 2020.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class BeamSettings(NamedTuple):
    """Settings shared by all texts of a search.

    Attributes:
      length_penalty: a hypothesis' score is its log-probability / length^penalty.
      early_stopping: end when as many hypotheses are complete as there are beams.
      first_length: length of a hypothesis without tokens, of all texts or of each: 1 where the
        start token of a blank counts, as in the original's filling of blanks; 0 where not, as in
        its sequence to sequence evaluation; that of the prompt where it counts, as in ChatGLM.
    """

    length_penalty: Float[Array, ""]
    early_stopping: Bool[Array, ""]
    first_length: Int[Array, "#N"] | Int[Array, ""]


class Hypotheses(NamedTuple):
    """The best complete hypotheses of a blank, W for each of N texts, the best first.

    T is the maximum number of tokens in a blank; the log-probability of the end follows those of
    the tokens. M is the number of slots of the cache.
    """

    score: Float[Array, "N W"]  # -inf where there is none
    length: Int[Array, "N W"]
    ended: Bool[Array, "N W"]  # by an end token, not by reaching the limit
    tokens: Int[Array, "N W T"]
    log_probs: Float[Array, "N W T+1"]
    visible: Bool[Array, "N W M"]  # the slots of its tokens and of everything before them


class Beams(NamedTuple):
    """The open hypotheses of a blank, W for each of N texts."""

    total: Float[Array, "N W"]  # sum of log-probabilities, -inf for an unused beam
    tokens: Int[Array, "N W T"]
    log_probs: Float[Array, "N W T+1"]
    visible: Bool[Array, "N W M"]  # as of `Hypotheses`, without the token that has not been run yet


class Candidates(NamedTuple):
    """The C best continuations of the beams of each text, the best first."""

    total: Float[Array, "N C"]
    beam: Int[Array, "N C"]
    token: Int[Array, "N C"]


def no_hypotheses(
    num_texts: int, num_beams: int, max_tokens: int, num_slots: int = 0
) -> Hypotheses:
    """Empty hypotheses of a blank."""
    shape = (num_texts, num_beams)
    return Hypotheses(
        score=jnp.full(shape, -jnp.inf),
        length=jnp.zeros(shape, jnp.int32),
        ended=jnp.zeros(shape, bool),
        tokens=jnp.zeros((*shape, max_tokens), jnp.int32),
        log_probs=jnp.zeros((*shape, max_tokens + 1)),
        visible=jnp.zeros((*shape, num_slots), bool),
    )


def first_beams(num_texts: int, num_beams: int, max_tokens: int, num_slots: int = 0) -> Beams:
    """One open hypothesis without tokens a text; the others come with the first token."""
    shape = (num_texts, num_beams)
    return Beams(
        total=jnp.full(shape, -jnp.inf).at[:, 0].set(0.0),
        tokens=jnp.zeros((*shape, max_tokens), jnp.int32),
        log_probs=jnp.zeros((*shape, max_tokens + 1)),
        visible=jnp.zeros((*shape, num_slots), bool),
    )


def best_candidates(
    scores: Float[Array, "N W V"], total: Float[Array, "N W"], count: int
) -> Candidates:
    """The `count` best continuations over all beams of each text."""
    num_texts, num_beams, vocab_size = scores.shape
    sums = (total[..., None] + scores).reshape(num_texts, num_beams * vocab_size)
    # Slices of the result that reach the compiler's top-k make a CPU sort the vocabulary instead.
    best, index = jax.lax.optimization_barrier(jax.lax.top_k(sums, count))
    return Candidates(best, index // vocab_size, index % vocab_size)


def add_hypotheses(old: Hypotheses, new: Hypotheses, is_new: Bool[Array, "N X"]) -> Hypotheses:
    """The best W of the old hypotheses and of those of the X new ones that `is_new` selects.

    Ties keep the earlier hypothesis.
    """
    score = jnp.where(is_new, new.score, -jnp.inf)
    together = jax.tree.map(
        lambda a, b: jnp.concatenate([a, b], axis=1), old, new._replace(score=score)
    )
    order = jnp.argsort(-together.score, axis=1, stable=True)[:, : old.score.shape[1]]
    return jax.tree.map(lambda array: _pick(array, order), together)


def search_step(
    beams: Beams,
    found: Hypotheses,
    candidates: Candidates,
    log_prob: Float[Array, "N C"],
    taken: Int[Array, "N"],
    ends: Int[Array, "E"],
    settings: BeamSettings,
) -> tuple[Beams, Hypotheses, Int[Array, "N W"], Bool[Array, "N"]]:
    """Advances every text's search by one token.

    Candidates that end the blank become hypotheses, if they are among the W best; the best others
    become the beams.

    Args:
      beams: with `taken` tokens each.
      found: complete hypotheses so far.
      candidates: the best first; enough that W of them are not end tokens.
      log_prob: of the candidates' tokens alone.
      taken: tokens of the beams.
      ends: tokens that end a blank.
      settings: of the search.

    Returns:
      The beams with one token more, the hypotheses, the beams that the new ones come from, and
      whether no open hypothesis of a text can become one of its best.
    """
    num_beams = beams.total.shape[1]
    num_candidates = candidates.token.shape[1]
    ended = jnp.isin(candidates.token, ends)

    length = jnp.broadcast_to(taken[:, None], ended.shape)
    completed = Hypotheses(
        score=_score(candidates.total, length, settings),
        length=length,
        ended=jnp.ones_like(ended),
        tokens=_pick(beams.tokens, candidates.beam),
        log_probs=_put(_pick(beams.log_probs, candidates.beam), length, log_prob),
        visible=_pick(beams.visible, candidates.beam),
    )
    among_best = jnp.arange(num_candidates) < num_beams
    found = add_hypotheses(found, completed, ended & among_best & jnp.isfinite(candidates.total))

    # A stable sort keeps the best first among those that are not end tokens.
    open_ = jnp.argsort(ended, axis=1, stable=True)[:, :num_beams]
    parent, token = _pick(candidates.beam, open_), _pick(candidates.token, open_)
    length = jnp.broadcast_to(taken[:, None], token.shape)
    extended = Beams(
        total=_pick(candidates.total, open_),
        tokens=_put(_pick(beams.tokens, parent), length, token),
        log_probs=_put(_pick(beams.log_probs, parent), length, _pick(log_prob, open_)),
        visible=_pick(beams.visible, parent),
    )
    worst, best = found.score[:, -1], _score(candidates.total[:, 0], taken, settings)
    done = jnp.isfinite(worst) & (settings.early_stopping | (worst >= best))
    return extended, found, parent, done


def close_search(
    beams: Beams, found: Hypotheses, taken: Int[Array, "N"], settings: BeamSettings
) -> Hypotheses:
    """Adds the open hypotheses, which have reached the maximum length, to the complete ones."""
    length = jnp.broadcast_to(taken[:, None], beams.total.shape)
    open_ = Hypotheses(
        score=_score(beams.total, length, settings),
        length=length,
        ended=jnp.zeros_like(length, bool),
        tokens=beams.tokens,
        log_probs=beams.log_probs,
        visible=beams.visible,
    )
    return add_hypotheses(found, open_, jnp.isfinite(beams.total))


def _score(
    total: Float[Array, "..."], taken: Int[Array, "..."], settings: BeamSettings
) -> Float[Array, "..."]:
    first = jnp.reshape(settings.first_length, (-1, *(1,) * (total.ndim - 1)))
    length = jnp.maximum(taken + first, 1)
    return total / length.astype(jnp.float32) ** settings.length_penalty


def _pick(array: Array, index: Int[Array, "N X"]) -> Array:
    """The entries of every text that `index` selects."""
    index = index.reshape(*index.shape, *(1,) * (array.ndim - 2))
    return jnp.take_along_axis(array, index, axis=1)


def _put(array: Array, index: Int[Array, "N X"], new: Array) -> Array:
    """Writes one value into each row of [N, X, T], at the row's index."""
    at = jnp.arange(array.shape[2]) == index[..., None]
    return jnp.where(at, new[..., None], array)
