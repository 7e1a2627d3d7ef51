"""GLM: a transformer that fills blanks, with one embedding table in and out."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from glm_jax.model.config import GLMConfig
from glm_jax.model.layers import INITIAL_STANDARD_DEVIATION, Block, layer_norm
from glm_jax.parallel.rules import constrain

HIDDEN_AXES = ("batch", "length", "hidden")


class GLM(nn.Module):
    """The network of Du et al. (2022): word, position and block position embeddings, N blocks.

    `model.apply({"params": params}, tokens, position_ids, prefix_length)` gives logits. A loss that
    needs logits at few positions calls `hidden_states` and `logits` through `method=`. Dropout
    needs `deterministic=False` and `rngs={"dropout": key}`.

    The layers are stacked: every parameter below `layers` has a leading axis N.
    """

    config: GLMConfig

    def setup(self) -> None:
        config = self.config
        rows = config.max_sequence_length + 1
        self.word_embedding = self._table("word_embedding", ("vocab", "hidden"), config.vocab_size)
        self.position_embedding = self._table("position_embedding", ("position", "hidden"), rows)
        self.block_position_embedding = self._table(
            "block_position_embedding", ("position", "hidden"), rows
        )
        self.embedding_dropout = nn.Dropout(config.embedding_dropout)
        self.layers = Block(config)
        self.final_layernorm = layer_norm(config)

    def _table(self, name: str, axes: tuple[str, str], rows: int) -> Any:
        init = nn.with_logical_partitioning(
            nn.initializers.normal(INITIAL_STANDARD_DEVIATION), axes
        )
        return self.param(name, init, (rows, self.config.hidden_size))

    def __call__(
        self,
        tokens: Int[Array, "B L"],
        position_ids: Int[Array, "B 2 L"],
        prefix_length: Int[Array, "B"],
        deterministic: bool = True,
    ) -> Float[Array, "B L V"]:
        """Float32 logits of the token at each position's target.

        Args:
          tokens: Part A followed by Part B.
          position_ids: row 0 the place in the text, row 1 the place inside the blank.
          prefix_length: length of Part A, visible to every position.
          deterministic: False applies dropout.

        Source: paper, section 2.
        """
        return self.logits(self.hidden_states(tokens, position_ids, prefix_length, deterministic))

    def hidden_states(
        self,
        tokens: Int[Array, "B L"],
        position_ids: Int[Array, "B 2 L"],
        prefix_length: Int[Array, "B"],
        deterministic: bool = True,
    ) -> Float[Array, "B L D"]:
        """Output of the final LayerNorm, in the compute dtype; arguments as in `__call__`."""
        dtype = jnp.dtype(self.config.compute_dtype)
        hidden = (
            self._words(dtype)[tokens]
            + self.position_embedding.astype(dtype)[position_ids[:, 0]]
            + self.block_position_embedding.astype(dtype)[position_ids[:, 1]]
        )  # [B, L] -> [B, L, D]
        hidden = self.embedding_dropout(hidden, deterministic=deterministic)
        hidden = self._run_layers(hidden, prefix_length, deterministic)
        return self.final_layernorm(hidden)

    def logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Float32 logits of hidden states of any leading shape."""
        words = self._words(hidden.dtype)
        return jnp.einsum("...d,vd->...v", hidden, words, preferred_element_type=jnp.float32)

    def _words(self, dtype: jnp.dtype) -> Float[Array, "V D"]:
        """The word embedding as it is used: gathered over fsdp after the cast, not before."""
        return constrain(self.word_embedding.astype(dtype), ("vocab_out", "hidden"))

    def _run_layers(
        self, hidden: Float[Array, "B L D"], prefix_length: Int[Array, "B"], deterministic: bool
    ) -> Float[Array, "B L D"]:
        def run_block(block: Block, hidden: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
            hidden = constrain(hidden, HIDDEN_AXES)
            return block(hidden, prefix_length, deterministic)

        if self.config.remat == "full":
            # The loop already keeps the compiler from merging the two computations.
            run_block = nn.remat(run_block, prevent_cse=False)

        def step(block: Block, hidden: Float[Array, "B L D"], _: None):
            return run_block(block, hidden), None

        scan = nn.scan(
            step,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            length=self.config.num_layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        hidden, _ = scan(self.layers, hidden, None)
        return constrain(hidden, HIDDEN_AXES)
