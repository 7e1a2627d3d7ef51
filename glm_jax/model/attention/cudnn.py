"""Flash attention on GPU for GLM's mask, by cuDNN."""

from __future__ import annotations

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from glm_jax.errors import UsageError
from glm_jax.model.dropout import ProbabilityDropout

_LARGEST_HEAD = 128  # what cuDNN does on every GPU since Ampere
_HEAD_FACTOR = 8


def gpu_attention(
    query: Float[Array, "B L H K"],
    key: Float[Array, "B M H K"],
    value: Float[Array, "B M H K"],
    prefix_length: Int[Array, "#B"],
    query_start: Int[Array, ""] | int = 0,
    dropout: ProbabilityDropout | None = None,
    *,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> Float[Array, "B L H K"]:
    """Scaled dot-product attention under the prefix mask, for arrays that lie on one GPU.

    cuDNN supports masks that follow from the position (causal) or from lengths (padding); any other
    must be a bias of [B, 1, L, L], whose memory and time grow with the square of the length. GLM's
    mask needs no bias: a position of the prefix sees the prefix, as in a batch padded to that
    length, and a later one sees its past, as under the causal mask. So both are computed and every
    position takes its own: P^2 + L^2 / 2 pairs of positions for a prefix of P, not L^2.

    Args:
      query, key, value: one vector per position and head, in bfloat16 or float16; K is a multiple
        of 8 up to 128.
      prefix_length: leading positions that every position of that example sees.
      query_start: 0; cuDNN has no causal mask for queries that start in the middle of the keys.
      dropout: None; cuDNN can't drop what the other kinds drop.
      implementation: "xla" does the same with plain operations on any platform and in any dtype.

    Raises:
      UsageError: inputs that cuDNN can't do.
    """
    if dropout is not None:
        raise UsageError(f"attention_dropout is {dropout.rate}, which cudnn can't do")
    length, head_size = query.shape[1], query.shape[3]
    if key.shape[1] != length or not (isinstance(query_start, int) and query_start == 0):
        raise UsageError(
            "cuDNN attention was given a part of the queries, but needs all of them on one GPU: "
            "no mesh axis may shard the sequence"
        )
    if implementation == "cudnn":
        check_head_size(head_size)
        if query.dtype not in (jnp.bfloat16, jnp.float16):
            raise UsageError(
                f"cuDNN attention was given {query.dtype} inputs, but can do bfloat16 and float16 "
                "only; set model.compute_dtype"
            )
    attention = functools.partial(
        jax.nn.dot_product_attention,
        query,
        key,
        value,
        scale=head_size**-0.5,
        implementation=implementation,
    )
    prefix = jnp.broadcast_to(prefix_length, query.shape[0]).astype(jnp.int32)
    # At least one, as no position of any example may see nothing at all; it is not used then.
    lengths = jnp.clip(prefix, 1, length)
    inside = attention(query_seq_lengths=lengths, key_value_seq_lengths=lengths)
    behind = attention(is_causal=True)
    in_prefix = jnp.arange(length) < prefix[:, None]  # [B, L]
    return jnp.where(in_prefix[:, :, None, None], inside, behind)


def check_head_size(head_size: int) -> None:
    """Refuses heads that cuDNN can't do.

    Raises:
      UsageError: the size is no multiple of 8 up to 128.
    """
    if head_size % _HEAD_FACTOR or head_size > _LARGEST_HEAD:
        raise UsageError(
            f"cuDNN attention was given heads of {head_size}, but needs a multiple of "
            f"{_HEAD_FACTOR} up to {_LARGEST_HEAD}"
        )
