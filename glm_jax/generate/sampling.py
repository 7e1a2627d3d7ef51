"""How the next token is chosen: pure functions on the logits of a batch.

Settings are arrays of one value a row, so that one compiled program serves requests that ask for
different things. What a setting forbids gets `FORBIDDEN`.
"""

from __future__ import annotations

import functools
import operator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Num

# What may never be chosen.
FORBIDDEN = -jnp.inf
# Numbers whose sums are one product.
_BLOCK = 128


def number_of_each(values: Num[Array, "B N"], index: Int[Array, "B"]) -> Num[Array, "B"]:
    """One number of each row.

    A sum over the row, of which all but one are zero, is one operation on a TPU; a gather with the
    making of its indices is five.
    """
    chosen = jnp.arange(values.shape[1]) == index[:, None]
    return jnp.sum(jnp.where(chosen, values, 0), axis=1, dtype=values.dtype)


def lowest_kept(
    logits: Float[Array, "B V"], top_k: Int[Array, "B"], top_p: Float[Array, "B"]
) -> Float[Array, "B 1"]:
    """The smallest logit that a row's filters leave.

    They are the k most probable tokens, and of these the most probable that together exceed
    probability p (Holtzman et al., 2020, section 3.1); the most probable one is always left, and
    tokens as probable as the last one are, too.

    Args:
      logits: of the next token.
      top_k: 0 for no limit.
      top_p: 1 for no limit.
    """
    vocab_size = logits.shape[1]
    # Which of two equal numbers comes first is of no interest, and a stable sort orders indices.
    ascending = jax.lax.sort(logits, is_stable=False)
    rank = vocab_size - jnp.clip(top_k, 1, vocab_size)
    of_rank = number_of_each(ascending, rank)[:, None]
    lowest = jnp.where(top_k[:, None] > 0, of_rank, FORBIDDEN)
    ascending = jnp.where(ascending < lowest, FORBIDDEN, ascending)
    # Proportional to probabilities.
    weights = jnp.exp(ascending - ascending[:, -1:])
    so_far = sums_to_end(weights)
    kept = (so_far - weights <= top_p[:, None] * so_far[:, :1]).at[:, -1].set(True)
    of_mass = jnp.min(jnp.where(kept, ascending, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(top_p[:, None] < 1.0, jnp.maximum(lowest, of_mass), lowest)


def sums_to_end(values: Float[Array, "B N"]) -> Float[Array, "B N"]:
    """The sum of each number and all that follow it.

    As products with zeros and ones, inside blocks of 128 and over blocks, they are five operations
    on a TPU; a cumulative sum is thirteen.
    """
    size = values.shape[1]
    blocks = jnp.pad(values, ((0, 0), (0, -size % _BLOCK))).reshape(len(values), -1, _BLOCK)
    number = blocks.shape[1]
    inside = jnp.tril(jnp.ones((_BLOCK, _BLOCK), values.dtype))
    later = jnp.tril(jnp.ones((number, number), values.dtype), -1)
    sums = jnp.matmul(blocks, inside, precision=jax.lax.Precision.HIGHEST)
    after = jnp.matmul(jnp.sum(blocks, axis=2), later, precision=jax.lax.Precision.HIGHEST)
    return (sums + after[..., None]).reshape(len(values), -1)[:, :size]


def repeating_tokens(
    tokens: Int[Array, "B M"],
    start: Int[Array, "B"],
    end: Int[Array, "B"],
    ngram: Int[Array, "B"],
    vocab_size: int,
) -> Bool[Array, "B V"]:
    """Every token that would repeat a sequence of `ngram` tokens; 0 for none.

    Args:
      tokens: what each row has so far; only those from `start` up to but without `end` count.
      start, end: see above.
      ngram: length of the sequences that may not come twice.
      vocab_size: V.

    Source: original code, `NoRepeatNGramLogitsProcessor`.
    """
    batch, num_slots = tokens.shape
    slot = jnp.arange(num_slots)[None, :]
    # A token would complete a repetition if the ngram - 1 tokens before it equal the last ones.
    repeats = (slot >= start[:, None] + ngram[:, None] - 1) & (slot < end[:, None])
    repeats &= ngram[:, None] > 0

    def compare(distance: Int[Array, ""], repeats: Bool[Array, "B M"]) -> Bool[Array, "B M"]:
        last = number_of_each(tokens, jnp.maximum(end - distance, 0))
        same = jnp.roll(tokens, distance, axis=1) == last[:, None]
        return repeats & (same | (distance >= ngram[:, None]))

    repeats = jax.lax.fori_loop(1, jnp.max(ngram), compare, repeats)
    # Along one axis: for two a TPU would bring the scores of every step into another layout.
    first = jnp.arange(batch)[:, None] * vocab_size
    index = jnp.where(repeats, first + tokens, batch * vocab_size)
    forbidden = jnp.zeros(batch * vocab_size, bool).at[index].set(True, mode="drop")
    return forbidden.reshape(batch, vocab_size)


def early_ends(
    ends: Int[Array, "E"],
    length: Int[Array, "B"],
    min_length: Int[Array, "B"],
    vocab_size: int,
) -> Bool[Array, "B V"]:
    """The tokens that end a blank, in rows whose blank is shorter than `min_length`."""
    # One after another, for there are few: a reduction would be an operation of its own.
    is_end = functools.reduce(
        operator.or_, [jnp.arange(vocab_size) == ends[i] for i in range(len(ends))]
    )
    return (length < min_length)[:, None] & is_end


def choose(
    scores: Float[Array, "B V"],
    temperature: Float[Array, "B"],
    top_k: Int[Array, "B"],
    top_p: Float[Array, "B"],
    keys: Key[Array, "B"],
) -> Int[Array, "B"]:
    """The next token of every row: the most probable at temperature 0, else one drawn.

    Drawing is from the softmax of scores / temperature, from `lowest_kept` on.

    Args:
      scores: logits or log-probabilities.
      temperature, top_k, top_p: settings of each row.
      keys: the randomness of each row; a row's token depends on no other row.
    """
    draws = temperature > 0.0

    def drawn(scores: Float[Array, "B V"]) -> Int[Array, "B"]:
        warm = scores / jnp.where(draws, temperature, 1.0)[:, None]
        lowest = jax.lax.cond(
            jnp.any(draws & ((top_k > 0) | (top_p < 1.0))),
            lambda: lowest_kept(warm, top_k, top_p),
            lambda: jnp.full((len(warm), 1), FORBIDDEN, warm.dtype),
        )
        noise = jax.vmap(lambda key: jax.random.gumbel(key, warm.shape[1:]))(keys)
        noisy = jnp.where(warm < lowest, FORBIDDEN, warm) + noise
        return jnp.argmax(jnp.where(draws[:, None], noisy, scores), axis=-1)

    # Sorting and drawing cost as much as a layer: nothing of it where all rows are greedy.
    return jax.lax.cond(jnp.any(draws), drawn, lambda scores: jnp.argmax(scores, axis=-1), scores)
