"""Multi-head attention over a fully visible prefix, or under any mask."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from glm_jax.model.attention.mask import prefix_mask
from glm_jax.model.dropout import ProbabilityDropout

# What the original gives hidden scores: the lowest fp16 number.
MASKED_SCORE = -65504.0


def attend(
    query: Float[Array, "B L H K"],
    key: Float[Array, "B M H K"],
    value: Float[Array, "B M H K"],
    prefix_length: Int[Array, "#B"] | None,
    *,
    attention_mask: Bool[Array, "#B 1 L M"] | Int[Array, "#B 1 L M"] | None = None,
    dropout: ProbabilityDropout | None = None,
) -> Float[Array, "B L H K"]:
    """Scaled dot-product attention under the prefix mask, written for XLA.

    Scores and softmax are float32 for inputs of fewer bits; the probabilities take the dtype of
    `value` for the second product, which is also the dtype of the result.

    Args:
      query, key, value: one vector per position and head; M = L unless a mask is given.
      prefix_length: leading positions that every position of that example sees; None only with a
        mask.
      attention_mask: 1 where a query (third axis) sees a key (fourth axis); it replaces the
        prefix. A query that sees nothing gets the mean of all values, as in the original.
      dropout: of the probabilities.
    """
    length, head_size = query.shape[1], query.shape[3]
    dtype = jnp.promote_types(query.dtype, jnp.float32)
    scores = jnp.einsum(
        "blhk,bmhk->bhlm", query * head_size**-0.5, key, preferred_element_type=dtype
    )
    if attention_mask is not None:
        visible = attention_mask.astype(bool)
    else:
        assert prefix_length is not None
        visible = prefix_mask(prefix_length, length)
    scores = jnp.where(visible, scores, MASKED_SCORE)
    probabilities = jax.nn.softmax(scores, axis=-1)
    if dropout is not None:
        probabilities = dropout(probabilities)
    return jnp.einsum("bhlm,bmhk->blhk", probabilities.astype(value.dtype), value)
