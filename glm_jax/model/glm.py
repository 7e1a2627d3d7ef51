"""GLM: a transformer that fills blanks, with one embedding table in and out."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from glm_jax.model.cache import KeyValueCache, LayerMemory
from glm_jax.model.config import GLMConfig
from glm_jax.model.layers import INITIAL_STANDARD_DEVIATION, Block, layer_norm
from glm_jax.parallel.rules import constrain

HIDDEN_AXES = ("batch", "length", "hidden")


class GLM(nn.Module):
    """The network of Du et al. (2022): word, position and block position embeddings, N blocks.

    `model.apply({"params": params}, tokens, position_ids, prefix_length)` gives logits. A loss that
    needs logits at few positions calls `hidden_states` and `logits` through `method=`; decoding
    calls `extend` and `logits`. Dropout needs `deterministic=False` and `rngs={"dropout": key}`.

    The layers are stacked: every parameter below `layers` has a leading axis N. With
    `mutable="intermediates"` a pass also gives the stream after the embeddings and after every
    layer; `glm_jax.model.stream` reads them.
    """

    config: GLMConfig

    def setup(self) -> None:
        config = self.config
        rows = config.num_positions
        self.word_embedding = self._table("word_embedding", ("vocab", "hidden"), config.vocab_size)
        self.position_embedding = self._table("position_embedding", ("position", "hidden"), rows)
        if config.block_position_encoding:
            self.block_position_embedding = self._table(
                "block_position_embedding", ("position", "hidden"), rows
            )
        self.embedding_dropout = nn.Dropout(config.embedding_dropout)
        self.layers = Block(config)
        self.final_layernorm = layer_norm(config.layernorm_epsilon, config.compute_dtype)

    def _table(self, name: str, axes: tuple[str, str], rows: int) -> Any:
        init = nn.with_logical_partitioning(
            nn.initializers.normal(INITIAL_STANDARD_DEVIATION), axes
        )
        return self.param(name, init, (rows, self.config.hidden_size))

    def __call__(
        self,
        tokens: Int[Array, "B L"],
        position_ids: Int[Array, "B 2 L"] | Int[Array, "B L"],
        prefix_length: Int[Array, "#B"],
        deterministic: bool = True,
        attention_mask: Bool[Array, "#B 1 L L"] | Int[Array, "#B 1 L L"] | None = None,
    ) -> Float[Array, "B L V"]:
        """Float32 logits of the token at each position's target.

        Args:
          tokens: Part A followed by Part B.
          position_ids: row 0 the place in the text, row 1 the place inside the blank. Networks with
            one-dimensional positions read row 0, or take [B, L].
          prefix_length: length of Part A, visible to every position; [1] is for all examples.
          deterministic: False applies dropout.
          attention_mask: 1 where a position (third axis) sees another (fourth axis); it takes the
            place of the prefix.

        Source: paper, section 2.
        """
        hidden = self.hidden_states(
            tokens, position_ids, prefix_length, deterministic, attention_mask
        )
        return self.logits(hidden)

    def hidden_states(
        self,
        tokens: Int[Array, "B L"],
        position_ids: Int[Array, "B 2 L"] | Int[Array, "B L"],
        prefix_length: Int[Array, "#B"],
        deterministic: bool = True,
        attention_mask: Bool[Array, "#B 1 L L"] | Int[Array, "#B 1 L L"] | None = None,
    ) -> Float[Array, "B L D"]:
        """Output of the final LayerNorm, in the compute dtype; arguments as in `__call__`."""
        hidden = self._embed(tokens, position_ids, deterministic)
        hidden, _ = self._run_layers(hidden, prefix_length, deterministic, attention_mask)
        return self.final_layernorm(hidden)

    def extend(
        self,
        tokens: Int[Array, "B L"],
        position_ids: Int[Array, "B 2 L"] | Int[Array, "B L"],
        cache: KeyValueCache,
        start: Int[Array, "B"] | Int[Array, ""] | int,
        attention_mask: Bool[Array, "#B 1 L M"] | Int[Array, "#B 1 L M"],
    ) -> tuple[Float[Array, "B L D"], KeyValueCache]:
        """Runs further positions with the keys and values of the earlier ones at hand.

        Whatever is visible gives the same as one pass over the whole sequence. L is 1 for a step of
        decoding and more for Part A; `start` may be traced, so that one compiled step serves all.

        Args:
          tokens: the new positions only.
          position_ids: theirs, as in `__call__`.
          cache: M slots for each example, from `empty_cache` or the call before.
          start: the slot of each example's first new position. Slots beyond M are not written.
          attention_mask: 1 where a new position sees a slot; the new positions stand in slots
            `start` to `start + L - 1` when it is applied. `memory_mask` makes the usual one.

        Returns:
          Output of the final LayerNorm for the new positions, and the cache with them.
        """
        start = jnp.broadcast_to(start, tokens.shape[:1])
        hidden = self._embed(tokens, position_ids, deterministic=True)
        hidden, new_cache = self._run_layers(hidden, None, True, attention_mask, (cache, start))
        assert new_cache is not None
        return self.final_layernorm(hidden), new_cache

    def logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Float32 logits of hidden states of any leading shape."""
        words = self._words(hidden.dtype)
        return jnp.einsum("...d,vd->...v", hidden, words, preferred_element_type=jnp.float32)

    def _words(self, dtype: jnp.dtype) -> Float[Array, "V D"]:
        """The word embedding as it is used: gathered over fsdp after the cast, not before."""
        return constrain(self.word_embedding.astype(dtype), ("vocab_out", "hidden"))

    def _embed(
        self,
        tokens: Int[Array, "B L"],
        position_ids: Int[Array, "B 2 L"] | Int[Array, "B L"],
        deterministic: bool,
    ) -> Float[Array, "B L D"]:
        dtype = jnp.dtype(self.config.compute_dtype)
        places = position_ids if position_ids.ndim == 2 else position_ids[:, 0]
        hidden = self._words(dtype)[tokens] + self.position_embedding.astype(dtype)[places]
        if self.config.block_position_encoding:
            hidden = hidden + self.block_position_embedding.astype(dtype)[position_ids[:, 1]]
        hidden = self.embedding_dropout(hidden, deterministic=deterministic)  # [B, L, D]
        self.sow("intermediates", "embedding", hidden)
        return hidden

    def _run_layers(
        self,
        hidden: Float[Array, "B L D"],
        prefix_length: Int[Array, "#B"] | None,
        deterministic: bool,
        attention_mask: Bool[Array, "#B 1 L M"] | Int[Array, "#B 1 L M"] | None,
        memory: tuple[KeyValueCache, Int[Array, "B"]] | None = None,
    ) -> tuple[Float[Array, "B L D"], KeyValueCache | None]:
        """All blocks in turn, with the cache and where to write it if there is one."""
        cache, start = (None, None) if memory is None else memory

        def run_block(block: Block, hidden: Float[Array, "B L D"], memory: LayerMemory | None):
            hidden = constrain(hidden, HIDDEN_AXES)
            return block(hidden, prefix_length, deterministic, attention_mask, memory)

        if self.config.remat == "full":
            # The loop already keeps the compiler from merging the two computations.
            run_block = nn.remat(run_block, prevent_cse=False)

        def step(block: Block, carried: tuple, layer: Int[Array, ""] | None):
            hidden, cache = carried
            memory = None
            if layer is not None and start is not None:
                memory = LayerMemory(cache, layer, start)
            return run_block(block, hidden, memory), None

        scan = nn.scan(
            step,
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True, "dropout": True},
            length=self.config.num_layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        layers = None if cache is None else jnp.arange(self.config.num_layers)
        (hidden, cache), _ = scan(self.layers, (hidden, cache), layers)
        return constrain(hidden, HIDDEN_AXES), cache
