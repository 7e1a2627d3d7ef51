"""How the next token is chosen: pure functions on the logits of a batch.

Settings are arrays of one value a row, so that one compiled program serves requests that ask for
different things. What a setting forbids gets `FORBIDDEN`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

# What may never be chosen.
FORBIDDEN = -jnp.inf


def keep_top_k(logits: Float[Array, "B V"], top_k: Int[Array, "B"]) -> Float[Array, "B V"]:
    """Forbids all but the k most probable tokens of each row; 0 keeps all.

    Tokens as probable as the last one kept are kept too.
    """
    vocab_size = logits.shape[1]
    smallest_rank = jnp.clip(top_k, 1, vocab_size) - 1
    descending = -jnp.sort(-logits, axis=-1)
    threshold = jnp.take_along_axis(descending, smallest_rank[:, None], axis=-1)
    return jnp.where((top_k[:, None] > 0) & (logits < threshold), FORBIDDEN, logits)


def keep_top_p(logits: Float[Array, "B V"], top_p: Float[Array, "B"]) -> Float[Array, "B V"]:
    """Forbids all but the most probable tokens that together exceed probability p; 1 keeps all.

    The most probable token is always kept (Holtzman et al., 2020, section 3.1).
    """
    descending = -jnp.sort(-logits, axis=-1)
    probabilities = jax.nn.softmax(descending, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    kept = (before <= top_p[:, None]).at[:, 0].set(True)
    threshold = jnp.min(jnp.where(kept, descending, jnp.inf), axis=-1, keepdims=True)
    return jnp.where((top_p[:, None] < 1.0) & (logits < threshold), FORBIDDEN, logits)


def mask_repeats(
    scores: Float[Array, "B V"],
    tokens: Int[Array, "B M"],
    start: Int[Array, "B"],
    end: Int[Array, "B"],
    ngram: Int[Array, "B"],
) -> Float[Array, "B V"]:
    """Forbids every token that would repeat a sequence of `ngram` tokens; 0 forbids none.

    Args:
      scores: of the next token.
      tokens: what each row has so far; only those from `start` up to but without `end` count.
      start, end: see above.
      ngram: length of the sequences that may not come twice.

    Source: original code, `NoRepeatNGramLogitsProcessor`.
    """
    num_slots = tokens.shape[1]
    slot = jnp.arange(num_slots)[None, :]
    # A token would complete a repetition if the ngram - 1 tokens before it equal the last ones.
    repeats = (slot >= start[:, None] + ngram[:, None] - 1) & (slot < end[:, None])
    repeats &= ngram[:, None] > 0

    def compare(distance: Int[Array, ""], repeats: Bool[Array, "B M"]) -> Bool[Array, "B M"]:
        last = jnp.take_along_axis(tokens, jnp.maximum(end - distance, 0)[:, None], axis=1)
        same = jnp.roll(tokens, distance, axis=1) == last
        return repeats & (same | (distance >= ngram[:, None]))

    repeats = jax.lax.fori_loop(1, jnp.max(ngram), compare, repeats)
    # Along one axis: for two a TPU would bring the scores of every step into another layout.
    first = jnp.arange(len(scores))[:, None] * scores.shape[1]
    index = jnp.where(repeats, first + tokens, scores.size)
    forbidden = jnp.zeros(scores.size, bool).at[index].set(True, mode="drop")
    return jnp.where(forbidden.reshape(scores.shape), FORBIDDEN, scores)


def mask_early_ends(
    scores: Float[Array, "B V"],
    ends: Int[Array, "E"],
    length: Int[Array, "B"],
    min_length: Int[Array, "B"],
) -> Float[Array, "B V"]:
    """Forbids the tokens that end a blank while it is shorter than `min_length`."""
    is_end = jnp.any(jnp.arange(scores.shape[1])[:, None] == ends, axis=1)
    return jnp.where((length < min_length)[:, None] & is_end, FORBIDDEN, scores)


def choose(
    scores: Float[Array, "B V"],
    temperature: Float[Array, "B"],
    top_k: Int[Array, "B"],
    top_p: Float[Array, "B"],
    keys: Key[Array, "B"],
) -> Int[Array, "B"]:
    """The next token of every row: the most probable at temperature 0, else one drawn.

    Drawing is from the softmax of scores / temperature, of which `keep_top_k` and then `keep_top_p`
    leave the tokens that may be drawn.

    Args:
      scores: logits or log-probabilities.
      temperature, top_k, top_p: settings of each row.
      keys: the randomness of each row; a row's token depends on no other row.
    """
    draws = temperature > 0.0

    def drawn(scores: Float[Array, "B V"]) -> Float[Array, "B V"]:
        warm = scores / jnp.where(draws, temperature, 1.0)[:, None]
        filters = jnp.any(draws & ((top_k > 0) | (top_p < 1.0)))
        warm = jax.lax.cond(
            filters,
            lambda warm: keep_top_p(keep_top_k(warm, top_k), top_p),
            lambda warm: warm,
            warm,
        )
        noise = jax.vmap(lambda key: jax.random.gumbel(key, warm.shape[1:]))(keys)
        return jnp.where(draws[:, None], warm + noise, scores)

    # Sorting and drawing cost as much as a layer: nothing of it where all rows are greedy.
    return jnp.argmax(jax.lax.cond(jnp.any(draws), drawn, lambda scores: scores, scores), axis=-1)
