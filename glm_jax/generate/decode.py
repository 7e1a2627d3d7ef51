"""The decode loop: a batch of rows, each filling the blanks of one text.

A step adds one token to every active row: the next token of its current blank, or the start token
of its next blank. Rows are independent of each other, so texts may enter and leave in any order.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, Shaped, UInt32

from glm_jax.generate.decoder import network
from glm_jax.generate.sampling import (
    FORBIDDEN,
    choose,
    early_ends,
    number_of_each,
    repeating_tokens,
)
from glm_jax.model.attention.mask import memory_mask
from glm_jax.model.decoding import DecodingGLM
from glm_jax.model.kv_cache import Cache
from glm_jax.parallel.layout import constrain

# Maximum steps of one call: its results stay on the device until it ends.
MAX_STEPS = 32


class RowSettings(NamedTuple):
    """The sampling settings of each row, see `Sampling`."""

    temperature: Float[Array, "B"]
    top_k: Int[Array, "B"]
    top_p: Float[Array, "B"]
    min_length: Int[Array, "B"]
    max_length: Int[Array, "B"]
    ngram: Int[Array, "B"]
    whole_text: Bool[Array, "B"]  # whether an n-gram may not come twice in the text
    key: UInt32[Array, "B 2"]


class DecodeState(NamedTuple):
    """The state of each row; S = M slots suffice for the masks of any text."""

    tokens: Int[Array, "B M"]  # Part A, then Part B so far
    length: Int[Array, "B"]  # slots in use; the last token has not been run yet
    mask_positions: Int[Array, "B S"]  # positions of the masks in Part A
    count: Int[Array, "B"]  # blanks of each text; 0 for a row that is not in use
    current: Int[Array, "B"]  # the blank being filled, `count` when all are
    taken: Int[Array, "B"]  # tokens chosen for this blank so far
    written: Int[Array, "B"]  # tokens of the first blank that were given
    position_step: Int[Array, "B"]  # added to a blank's position for every token in it
    settings: RowSettings


class Emitted(NamedTuple):
    """The output of S steps; inactive rows emit tokens that are neither kept nor close a blank.

    Attributes:
      token: the token chosen.
      log_prob: its log-probability under the network, before any constraint.
      kept: whether it is part of the blank.
      closes: whether the blank is filled with this step.
      top_tokens: the most probable tokens of the network at this position.
      top_log_probs: their log-probabilities.
    """

    token: Int[Array, "S B"]
    log_prob: Float[Array, "S B"]
    kept: Bool[Array, "S B"]
    closes: Bool[Array, "S B"]
    top_tokens: Int[Array, "S B A"]
    top_log_probs: Float[Array, "S B A"]


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def run_rows(
    model: DecodingGLM,
    num_top: int,
    params: PyTree,
    cache: Cache,
    rows: DecodeState,
    blank_start: Int[Array, ""],
    ends: Int[Array, "E"],
    max_steps: Int[Array, ""],
    min_active: Int[Array, ""],
) -> tuple[Cache, DecodeState, Int[Array, ""], Emitted]:
    """Steps until `max_steps` are done or fewer than `min_active` rows have work left.

    Args:
      model, params: the network.
      num_top: A, the number of most probable tokens reported at every position.
      cache: of the rows, with Part A read.
      rows: their state.
      blank_start: the token that starts every blank.
      ends: the tokens that end a blank.
      max_steps: at most `MAX_STEPS`.
      min_active: at least 1.

    Returns:
      The cache, the rows, the number of steps done, and their output.
    """

    def should_continue(state: tuple) -> Bool[Array, ""]:
        _, rows, step, *_ = state
        active = jnp.sum(rows.current < rows.count)
        return (step < max_steps) & (active >= min_active)

    def run_step(state: tuple) -> tuple:
        cache, rows, step, numbers, log_probs = state
        rows = _by_example(rows)
        logits, cache = next_logits(model, params, cache, rows)
        keys = _keys_at(all_keys, rows.length - first_length)
        chosen, log_prob = _by_example(_choose_and_rank(logits, rows, ends, keys, num_top))
        rows, kept, closes = _advance(rows, chosen[:, 0], blank_start, ends)
        number = jnp.concatenate([chosen, kept[:, None], closes[:, None]], axis=1)
        return cache, rows, step + 1, numbers.at[step].set(number), log_probs.at[step].set(log_prob)

    batch_size, first_length = rows.length.shape[0], rows.length
    all_keys = _keys_of_steps(rows)
    # Two arrays: an operation on a TPU takes a time of its own however small it is.
    numbers = jnp.zeros((MAX_STEPS, batch_size, 3 + num_top), jnp.int32)
    log_probs = jnp.zeros((MAX_STEPS, batch_size, 1 + num_top))
    state = (cache, rows, jnp.int32(0), numbers, log_probs)
    cache, rows, step, numbers, log_probs = jax.lax.while_loop(should_continue, run_step, state)
    emitted = Emitted(
        token=numbers[..., 0],
        log_prob=log_probs[..., 0],
        kept=numbers[..., -2] > 0,
        closes=numbers[..., -1] > 0,
        top_tokens=numbers[..., 1:-2],
        top_log_probs=log_probs[..., 1:],
    )
    return cache, rows, step, emitted


def _by_example(tree: PyTree) -> PyTree:
    """Arrays with an axis of examples, sharded as the batch is and not as logits are.

    They are small: many operations on a part of them, and exchanges between, take longer.
    """

    def shard(array: Shaped[Array, "B ..."]) -> Shaped[Array, "B ..."]:
        return constrain(array, ("batch", *["replicated"] * (array.ndim - 1)))

    return jax.tree.map(shard, tree)


def next_logits(
    model: DecodingGLM, params: PyTree, cache: Cache, rows: DecodeState
) -> tuple[Float[Array, "B V"], Cache]:
    """Runs the last token of every row that has work left."""
    num_slots = cache[0].num_slots
    active = rows.current < rows.count
    slot = jnp.where(active, rows.length - 1, num_slots)  # beyond the end, nothing is written
    tokens, position_ids = last_tokens(rows)
    visible = memory_mask(jnp.where(active, slot, 0), 1, num_slots)
    inputs = (tokens[:, None], position_ids[..., None], cache, slot, visible)
    return network(model, params, *inputs, method="next_logits")


def last_tokens(rows: DecodeState) -> tuple[Int[Array, "B"], Int[Array, "B 2"]]:
    """The last token of every row, which has not been run yet, and its position ids."""
    tokens = number_of_each(rows.tokens, jnp.maximum(rows.length - 1, 0))
    index = rows.taken + given_tokens(rows)
    position = _mask_position(rows) + rows.position_step * index
    return tokens, jnp.stack([position, index + 1], axis=1)


def given_tokens(rows: DecodeState) -> Int[Array, "B"]:
    """Tokens of each row's current blank that were given."""
    return jnp.where(rows.current == 0, rows.written, 0)


def _mask_position(rows: DecodeState) -> Int[Array, "B"]:
    """The position of the mask of each row's current blank."""
    blank = jnp.minimum(rows.current, rows.mask_positions.shape[1] - 1)
    return number_of_each(rows.mask_positions, blank)


def _keys_of_steps(rows: DecodeState) -> UInt32[Array, "B S 2"]:
    """The randomness of each row by its length, for as many lengths as a call can reach."""

    def of_row(key: UInt32[Array, "2"], length: Int[Array, ""]) -> UInt32[Array, "S 2"]:
        lengths = length + jnp.arange(MAX_STEPS)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.wrap_key_data(key), lengths)
        return jax.random.key_data(keys)

    return jax.vmap(of_row)(rows.settings.key, rows.length)


def _keys_at(keys: UInt32[Array, "B S 2"], step: Int[Array, "B"]) -> Key[Array, "B"]:
    """The keys of each row at its number of steps."""
    of_step = jnp.arange(keys.shape[1]) == step[:, None]
    chosen = jnp.sum(jnp.where(of_step[..., None], keys, 0), axis=1, dtype=keys.dtype)
    return jax.random.wrap_key_data(chosen)


def _choose_and_rank(
    logits: Float[Array, "B V"],
    rows: DecodeState,
    ends: Int[Array, "E"],
    keys: Key[Array, "B"],
    num_top: int,
) -> tuple[Int[Array, "B 1+A"], Float[Array, "B 1+A"]]:
    """The next token of each row and the most probable ones, and their log-probabilities."""
    settings, first = rows.settings, rows.length - rows.taken - given_tokens(rows)
    scores = apply_constraints(logits, rows, first, ends)
    token = choose(scores, settings.temperature, settings.top_k, settings.top_p, keys)
    top_logits, top_tokens = jax.lax.top_k(logits, num_top)
    found = jnp.concatenate([number_of_each(logits, token)[:, None], top_logits], axis=1)
    total = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    return jnp.concatenate([token[:, None], top_tokens], axis=1), found - total


def apply_constraints(
    scores: Float[Array, "B V"], rows: DecodeState, first: Int[Array, "B"], ends: Int[Array, "E"]
) -> Float[Array, "B V"]:
    """Masks the tokens that each row's settings forbid at its position.

    Args:
      scores: logits or log-probabilities.
      rows: their state.
      first: slot of the first token of each row's blank.
      ends: tokens that end a blank.
    """
    settings, vocab_size = rows.settings, scores.shape[1]
    start = jnp.where(settings.whole_text, 0, first)
    # The branches have masks as their results: scores would be copied, changed or not.
    forbidden = jax.lax.cond(
        jnp.any(settings.ngram > 0),
        lambda: repeating_tokens(rows.tokens, start, rows.length, settings.ngram, vocab_size),
        lambda: jnp.zeros(scores.shape, bool),
    )
    forbidden |= early_ends(ends, rows.taken, settings.min_length, vocab_size)
    return jnp.where(forbidden, FORBIDDEN, scores)


def _advance(
    rows: DecodeState, token: Int[Array, "B"], blank_start: Int[Array, ""], ends: Int[Array, "E"]
) -> tuple[DecodeState, Bool[Array, "B"], Bool[Array, "B"]]:
    """Adds one chosen token to every row, which extends or ends its blank.

    As in the original, the token that reaches a blank's limit is part of the blank but not of what
    later blanks see.
    """
    active = rows.current < rows.count
    kept = active & ~jnp.isin(token, ends)
    taken = rows.taken + kept
    closes = active & (~kept | (taken >= rows.settings.max_length))
    current = rows.current + closes
    opens = closes & (current < rows.count)
    appends = opens | (active & ~closes)
    end = jnp.where(appends, rows.length, rows.tokens.shape[1])
    written = jnp.where(opens, blank_start, token)
    index = jnp.arange(token.shape[0])
    return (
        rows._replace(
            tokens=rows.tokens.at[index, end].set(written, mode="drop"),
            length=rows.length + appends,
            current=current,
            taken=jnp.where(closes, 0, taken),
        ),
        kept,
        closes,
    )
