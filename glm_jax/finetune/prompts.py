"""Continuous prompts: trained vectors in place of word embeddings.

Source: the original's `PromptSpell` (reference-finetune.md, section 5).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

PROMPT_ENCODERS = ("lstm", "mlp", "none")
# What prompts start from: random vectors, or word embeddings.
INITIAL_PROMPTS = ("random", "words")
# Prompts made of words are made of the first ones in the vocabulary.
NUM_FREQUENT_WORDS = 5000
_NUM_LSTM_LAYERS = 2


class PromptEncoder(nn.Module):
    """The embeddings of P prompts, from trained vectors through a network or as they are.

    Attributes:
      num_prompts: P.
      hidden_size: D.
      kind: "lstm" for a bidirectional LSTM of two layers and an MLP, "mlp", or "none".
    """

    num_prompts: int
    hidden_size: int
    kind: str = "lstm"

    @nn.compact
    def __call__(self) -> Float[Array, "P D"]:
        """The embeddings, float32."""
        size = self.hidden_size
        prompts = self.param(
            "spell_embeddings", nn.initializers.normal(1.0), (self.num_prompts, size)
        )
        if self.kind == "none":
            return prompts
        if self.kind == "lstm":
            for layer in range(_NUM_LSTM_LAYERS):
                forward = LSTM(size, name=f"lstm_{layer}")(prompts)
                backward = LSTM(size, name=f"lstm_{layer}_reverse")(prompts[::-1])[::-1]
                prompts = jnp.concatenate([forward, backward], axis=-1)
        hidden = nn.relu(nn.Dense(size, name="mlp_in")(prompts))
        return nn.Dense(size, name="mlp_out")(hidden)


def words_as_prompts(
    key: Key[Array, ""],
    word_embedding: Float[Array, "V D"],
    verbalizer_ids: Sequence[int],
    num_prompts: int,
) -> Float[Array, "P D"]:
    """Trained vectors to start from: each a random mixture of a frequent word and a verbalizer.

    Source: the original's `prompt_init` (reference-finetune.md, section 5).

    Args:
      key: decides words and shares.
      word_embedding: of the network.
      verbalizer_ids: tokens of the task's verbalizers, at least one.
      num_prompts: P.
    """

    def mixtures(word_embedding):
        keys = jax.random.split(key, 3)
        num_words = min(NUM_FREQUENT_WORDS, word_embedding.shape[0])
        words = jax.random.randint(keys[0], (num_prompts,), 0, num_words)
        verbalizers = jax.random.choice(keys[1], jnp.asarray(verbalizer_ids), (num_prompts,))
        share = jax.random.uniform(keys[2], (num_prompts, 1))
        return share * word_embedding[words] + (1 - share) * word_embedding[verbalizers]

    return jax.jit(mixtures)(word_embedding)


class LSTM(nn.Module):
    """One direction of one layer, with the parameters that PyTorch's has.

    Attributes:
      hidden_size: D.
    """

    hidden_size: int

    @nn.compact
    def __call__(self, inputs: Float[Array, "P I"]) -> Float[Array, "P D"]:
        """Hidden states after each input."""
        size = self.hidden_size
        bound = 1 / math.sqrt(size)

        def init(key, shape):
            return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

        def param(name: str, *shape: int) -> Array:
            return self.param(name, init, shape)

        gates = 4 * size
        projected = inputs @ param("kernel_ih", inputs.shape[-1], gates) + param("bias_ih", gates)
        kernel, bias = param("kernel_hh", size, gates), param("bias_hh", gates)

        def step(carry, projection):
            hidden, cell = carry
            gates = projection + hidden @ kernel + bias
            keep_in, forget, new, keep_out = jnp.split(gates, 4)
            cell = nn.sigmoid(forget) * cell + nn.sigmoid(keep_in) * jnp.tanh(new)
            hidden = nn.sigmoid(keep_out) * jnp.tanh(cell)
            return (hidden, cell), hidden

        zeros = jnp.zeros(size)
        return jax.lax.scan(step, (zeros, zeros), projected)[1]
