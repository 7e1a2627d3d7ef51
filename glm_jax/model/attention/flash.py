"""Flash attention on TPU for GLM's mask: a prefix of its own length in every example.

The scores never reach the memory of the chip: a kernel goes over blocks of keys with a running
softmax, and the backward pass makes the weights again from the sum of exponentials that the
forward pass kept. Blocks that the mask hides are neither computed nor fetched.

Source: Dao et al. (2022), FlashAttention; the mask is that of the GLM paper, section 2.1.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int, UInt32

from glm_jax.errors import UsageError
from glm_jax.model.attention.flash_backward import Queries, backward
from glm_jax.model.attention.flash_forward import forward
from glm_jax.model.attention.flash_tiling import LANES, Tiling, check_length, choose_tiling
from glm_jax.model.dropout import ProbabilityDropout
from glm_jax.model.remat import ATTENTION_CONTEXT, ATTENTION_LOGSUMEXP


class _Settings(NamedTuple):
    """What shapes the kernels: heads in a group of 128 lanes, factor of the scores, and so on."""

    heads: int
    scale: float
    dropout_rate: float
    tiling: Tiling
    interpret: bool


def prefix_flash_attention(
    query: Float[Array, "B L H K"],
    key: Float[Array, "B M H K"],
    value: Float[Array, "B M H K"],
    prefix_length: Int[Array, "#B"],
    query_start: Int[Array, ""] | int = 0,
    dropout: ProbabilityDropout | None = None,
    *,
    tiling: Tiling | None = None,
    interpret: bool = False,
) -> Float[Array, "B L H K"]:
    """Scaled dot-product attention under the prefix mask, for arrays that lie on one TPU.

    The query at position p sees key j if `j <= p` or `j < prefix_length`. Scores, softmax and sums
    are float32; products take the dtype of the inputs, which is also that of the result. Remat
    policies can keep what the backward pass needs by the names "attention_context" and
    "attention_logsumexp".

    Heads of 64 are worked on in pairs and heads of 128 one at a time. Other sizes are padded with
    zeros to the next of the two, so that a head of 72 costs the time and memory of one of 128; so
    is an odd head of 64.

    Args:
      query, key, value: one vector per position and head, K up to 128; L and M are multiples of
        128 up to 32,768.
      prefix_length: leading keys that every query of that example sees.
      query_start: position of the first query among the keys, where `query` is only a part of the
        sequence; `query_start + L <= M`.
      dropout: of the probabilities; the kernels draw the bits, which no memory holds.
      tiling: how the work is cut; None chooses by the lengths.
      interpret: whether Pallas emulates the kernels, on any platform and very slowly.

    Raises:
      UsageError: L, M or K is none that the kernels can do.
    """
    batch, length, num_heads, head_size = query.shape
    num_keys = key.shape[1]
    check_shape(length, head_size)
    settings = _Settings(
        heads=2 if head_size <= LANES // 2 else 1,
        scale=head_size**-0.5,
        dropout_rate=dropout.rate if dropout is not None else 0.0,
        tiling=tiling or choose_tiling(length, num_keys, query.dtype.itemsize),
        interpret=interpret,
    )
    prefix = jnp.broadcast_to(jnp.clip(prefix_length, 0, num_keys), batch).astype(jnp.int32)
    start = jnp.reshape(jnp.asarray(query_start, jnp.int32), 1)
    groups = [_pack(array, settings.heads) for array in (query, key, value)]
    streams = _pack_streams(dropout, settings.heads) if dropout is not None else None
    context: Any = _attention(*groups, prefix, start, streams, settings)
    return _unpack(context, settings.heads, num_heads, head_size)


def check_shape(length: int, head_size: int) -> None:
    """Refuses what the kernels can't do.

    Raises:
      UsageError: the length is no multiple of 128 up to 32,768, or heads are wider than 128.
    """
    check_length(length)
    if head_size > LANES:
        raise UsageError(
            f"flash attention was given heads of {head_size}, but can do no more than {LANES}"
        )


def _padded_size(heads: int) -> int:
    """Lanes of one head."""
    return LANES // heads


def _pack(array: Float[Array, "B L H K"], heads: int) -> Float[Array, "B L lanes"]:
    """Lays `heads` heads at a time side by side in 128 lanes."""
    batch, length, num_heads, head_size = array.shape
    padding = (-num_heads % heads, _padded_size(heads) - head_size)
    if any(padding):
        array = jnp.pad(array, ((0, 0), (0, 0), (0, padding[0]), (0, padding[1])))
    return array.reshape(batch, length, -1)


def _pack_streams(dropout: ProbabilityDropout, heads: int) -> UInt32[Array, "B G words L"]:
    """The streams of each group: the first words of its heads, then the second ones."""
    batch, num_heads, length = dropout.streams.first.shape
    padding = ((0, 0), (0, -num_heads % heads), (0, 0))
    words = [jnp.pad(word, padding) for word in dropout.streams]
    groups = [word.reshape(batch, -1, heads, length) for word in words]
    return jnp.concatenate(groups, axis=2)


def _unpack(
    array: Float[Array, "B L lanes"], heads: int, num_heads: int, head_size: int
) -> Float[Array, "B L H K"]:
    batch, length, _ = array.shape
    array = array.reshape(batch, length, -1, _padded_size(heads))
    return array[:, :, :num_heads, :head_size]


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def _attention(
    query: Float[Array, "B L lanes"],
    key: Float[Array, "B M lanes"],
    value: Float[Array, "B M lanes"],
    prefix_length: Int[Array, "B"],
    query_start: Int[Array, "1"],
    streams: UInt32[Array, "B G words L"] | None,
    settings: _Settings,
) -> Float[Array, "B L lanes"]:
    """Attention of packed heads."""
    arguments = query, key, value, prefix_length, query_start, streams
    return forward(*arguments, **settings._asdict())[0]


def _attention_forward(query, key, value, prefix_length, query_start, streams, settings):
    arguments = query, key, value, prefix_length, query_start, streams
    context, logsumexp = forward(*arguments, **settings._asdict())
    context = checkpoint_name(context, ATTENTION_CONTEXT)
    logsumexp = checkpoint_name(logsumexp, ATTENTION_LOGSUMEXP)
    return context, (*arguments, context, logsumexp)


def _attention_backward(settings, kept, gradient):
    query, key, value, prefix_length, query_start, streams, context, logsumexp = kept
    queries = Queries(query, context, logsumexp, gradient, streams)
    gradients = backward(queries, key, value, prefix_length, query_start, **settings._asdict())
    return (*gradients, None, None, None)


_attention.defvjp(_attention_forward, _attention_backward)
