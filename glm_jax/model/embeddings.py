"""Embedding tables: of tokens, which also make the logits, and of positions."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from glm_jax.model.layers import INITIAL_STANDARD_DEVIATION
from glm_jax.parallel.layout import constrain

WORD_AXES = ("vocab", "hidden")
POSITION_AXES = ("position", "position_out")


class Prompts(NamedTuple):
    """Continuous prompts: vectors that replace the embeddings of some tokens.

    Attributes:
      ids: at each position the number of a prompt, counted from 1, or 0 where its token counts.
      embeddings: the prompts.
    """

    ids: Int[Array, "B L"]
    embeddings: Float[Array, "P D"]


def embedding_parameter(
    module: nn.Module, name: str, axes: tuple[str, str], shape: tuple[int, int]
) -> Float[Array, "R D"]:
    """An embedding table among a module's parameters."""
    normal = nn.initializers.normal(INITIAL_STANDARD_DEVIATION)
    table: Any = module.param(name, nn.with_logical_partitioning(normal, axes), shape)
    return table


def unembed(
    hidden: Float[Array, "... D"], embedding_table: Float[Array, "V D"]
) -> Float[Array, "... V"]:
    """Logits of hidden states, from the word embedding, in float32 or more."""
    dtype = jnp.promote_types(hidden.dtype, jnp.float32)
    return jnp.einsum("...d,vd->...v", hidden, embedding_table, preferred_element_type=dtype)


class WordEmbedding(nn.Module):
    """The token embedding, one table for tokens and logits.

    Attributes:
      vocab_size: V.
      hidden_size: D.
      dtype: of the table as it is used.
    """

    vocab_size: int
    hidden_size: int
    dtype: str

    def setup(self) -> None:
        shape = (self.vocab_size, self.hidden_size)
        self.word_embedding = embedding_parameter(self, "word_embedding", WORD_AXES, shape)

    def embedding_table(self) -> Float[Array, "V D"]:
        """The table in the compute dtype."""
        table = self.word_embedding.astype(jnp.dtype(self.dtype))
        return constrain(table, ("vocab_out", "hidden"))

    def embed_tokens(self, tokens: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        """The row of every token."""
        return self.embedding_table()[tokens]


class Embeddings(WordEmbedding):
    """Embeddings of tokens and of positions in the text and, optionally, inside the blank.

    Attributes:
      num_positions: rows of each position table; 0 for none.
      block_position_encoding: whether there is a table for positions inside the blank.
    """

    num_positions: int
    block_position_encoding: bool

    def setup(self) -> None:
        super().setup()
        if not self.num_positions:
            return
        shape = (self.num_positions, self.hidden_size)
        self.position_embedding = embedding_parameter(
            self, "position_embedding", POSITION_AXES, shape
        )
        if self.block_position_encoding:
            self.block_position_embedding = embedding_parameter(
                self, "block_position_embedding", POSITION_AXES, shape
            )

    def embed(
        self,
        tokens: Int[Array, "B L"],
        position_ids: Int[Array, "B 2 L"] | Int[Array, "B L"],
        prompts: Prompts | None = None,
    ) -> Float[Array, "B L D"]:
        """The sum of the embeddings of every token, or prompt, and its positions."""
        dtype = jnp.dtype(self.dtype)
        positions = position_ids if position_ids.ndim == 2 else position_ids[:, 0]
        hidden = self.embed_tokens(tokens)
        if prompts is not None:
            vectors = prompts.embeddings.astype(dtype)[jnp.maximum(prompts.ids - 1, 0)]
            hidden = jnp.where(prompts.ids[..., None] > 0, vectors, hidden)
        if not self.num_positions:
            return hidden
        hidden = hidden + self.position_embedding.astype(dtype)[positions]
        if self.block_position_encoding:
            hidden = hidden + self.block_position_embedding.astype(dtype)[position_ids[:, 1]]
        return hidden
