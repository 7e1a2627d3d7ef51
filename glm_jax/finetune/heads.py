"""The head of classification without a cloze: pooling and two dense layers.

Source: reference-finetune.md, section 5. Checkpoints of the original call them `pool_layer` and
`multichoice_head`.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

POOLS = ("cls", "pad", "start")


def pooled_positions(prefix_length: Int[Array, "B"], length: int, pool: str) -> Int[Array, "B"]:
    """The position by whose hidden state a head classifies the sequence.

    Args:
      prefix_length: length of the input, eos included.
      length: L, of the row.
      pool: "cls" for the first token, "pad" for the eos at the end, "start" for the position after
        it, which the original reads; where the input fills the row, the eos is read instead.
    """
    if pool == "cls":
        return jnp.zeros_like(prefix_length)
    index = prefix_length - 1 if pool == "pad" else prefix_length
    return jnp.minimum(index, length - 1)


def uniform(fan_in: int) -> nn.initializers.Initializer:
    """The initial distribution of a dense layer of the original."""
    bound = 1 / math.sqrt(fan_in)

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class ClassificationHead(nn.Module):
    """tanh of a dense layer, dropout, and one score per label (or one, per choice).

    Attributes:
      num_labels: C.
      hidden_size: D.
      dropout: rate before the second layer.
    """

    num_labels: int
    hidden_size: int
    dropout: float = 0.1

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "B D"], dropout_keys: Key[Array, "B"] | None = None
    ) -> Float[Array, "B C"]:
        """Float32 scores of pooled hidden states.

        Args:
          hidden: pooled.
          dropout_keys: a key for each row, so that its numbers do not depend on the device that
            has it; None for no dropout.
        """
        init = uniform(self.hidden_size)

        def dense(features: int, name: str) -> nn.Dense:
            return nn.Dense(features, kernel_init=init, bias_init=init, name=name)

        hidden = jnp.tanh(dense(self.hidden_size, "pool_layer")(hidden.astype(jnp.float32)))
        if dropout_keys is not None and self.dropout:
            keep = 1 - self.dropout
            draw = jax.vmap(lambda key: jax.random.bernoulli(key, keep, (self.hidden_size,)))
            hidden = jnp.where(draw(dropout_keys), hidden / keep, 0.0)
        return dense(self.num_labels, "multichoice_head")(hidden)
