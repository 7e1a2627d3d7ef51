"""GLM: a transformer that fills blanks, with one embedding table in and out."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from glm_jax.model.config import GLMConfig
from glm_jax.model.dropout import Dropout, drop_hidden
from glm_jax.model.layers import INITIAL_STANDARD_DEVIATION, Block, layer_norm, stored_parameter
from glm_jax.model.remat import remat_policy
from glm_jax.parallel.collectives import join_tensor_parts, local_offset, parts, tensor_part, whole
from glm_jax.parallel.layout import BATCH_AXES, DEFAULT_LAYOUT, LENGTH_AXES, LayoutConfig, constrain

WORD_AXES = ("vocab", "hidden")
POSITION_AXES = ("position", "position_out")
HIDDEN_AXES = ("batch", "length", "hidden")


def unembed(hidden: Float[Array, "... D"], words: Float[Array, "V D"]) -> Float[Array, "... V"]:
    """Float32 logits of hidden states, from the embedding of all words."""
    return jnp.einsum("...d,vd->...v", hidden, words, preferred_element_type=jnp.float32)


class GLM(nn.Module):
    """The network of Du et al. (2022): word, position and block position embeddings, N blocks.

    `model.apply({"params": params}, tokens, position_ids, prefix_length)` gives logits. A loss that
    needs logits at few positions calls `hidden_states` and `logits` through `method=`; decoding has
    `DecodingGLM`. Dropout needs `deterministic=False` and `rngs={"dropout": key}`.

    The layers are stacked: every parameter below `layers` has a leading axis N. With
    `mutable="intermediates"` a pass also gives the stream after the embeddings and after every
    layer; `glm_jax.model.intermediates` reads them.

    Inside `jax.shard_map` every device passes its own part of parameters, batch and sequence, and
    gets its part of the result; the parts meet in `glm_jax.parallel.collectives`.

    Attributes:
      config: dimensions and numerics.
      layout: how parameters are stored inside `jax.shard_map`.
    """

    config: GLMConfig
    layout: LayoutConfig = DEFAULT_LAYOUT

    def setup(self) -> None:
        config = self.config
        rows = config.num_positions
        self.word_embedding = self._table("word_embedding", WORD_AXES, config.vocab_size)
        self.position_embedding = self._table("position_embedding", POSITION_AXES, rows)
        if config.block_position_encoding:
            self.block_position_embedding = self._table(
                "block_position_embedding", POSITION_AXES, rows
            )
        self.layers = Block(config, self.layout)
        self.final_layernorm = layer_norm(config.layernorm_epsilon, config.compute_dtype)

    def _table(self, name: str, axes: tuple[str, str], rows: int) -> Float[Array, "R D"]:
        normal = nn.initializers.normal(INITIAL_STANDARD_DEVIATION)
        return stored_parameter(self, name, normal, axes, (rows, self.config.hidden_size))

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
        dropout = self._dropout(tokens, deterministic)
        hidden = self._embed(tokens, position_ids, dropout)
        hidden = self._run_layers(hidden, prefix_length, dropout, attention_mask)
        return self.final_layernorm(hidden)

    def logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Float32 logits of hidden states of any leading shape.

        Tensor-parallel devices pass different positions: each has the whole vocabulary.
        """
        return unembed(hidden, self.embedding_table())

    def embedding_table(self) -> Float[Array, "V D"]:
        """The word embedding as it is used: whole, in the compute dtype."""
        words = self._used(self.word_embedding, WORD_AXES)
        return constrain(words, ("vocab_out", "hidden"))

    def _used(self, table: Float[Array, "R C"], axes: tuple[str, str]) -> Float[Array, "R D"]:
        config = self.config
        rows = config.vocab_size if axes == WORD_AXES else config.num_positions
        shape, dtype = (rows, config.hidden_size), jnp.dtype(config.compute_dtype)
        return whole(table, axes, shape, dtype, over_tensor=True, layout=self.layout)

    def _embed(
        self,
        tokens: Int[Array, "B L"],
        position_ids: Int[Array, "B 2 L"] | Int[Array, "B L"],
        dropout: Dropout | None,
    ) -> Float[Array, "B L D"]:
        # What tensor-parallel devices share is looked up by each for a part of the positions.
        tokens, position_ids = tensor_part(tokens, 1), tensor_part(position_ids, -1)
        places = position_ids if position_ids.ndim == 2 else position_ids[:, 0]
        hidden = self.embedding_table()[tokens]
        hidden = hidden + self._used(self.position_embedding, POSITION_AXES)[places]
        if self.config.block_position_encoding:
            table = self._used(self.block_position_embedding, POSITION_AXES)
            hidden = hidden + table[position_ids[:, 1]]
        hidden = join_tensor_parts(hidden, 1)  # [B, L, D]
        hidden = drop_hidden(dropout, self.config.embedding_dropout, hidden, 0)
        self.sow("intermediates", "embedding", hidden)
        return hidden

    def _dropout(self, tokens: Int[Array, "B L"], deterministic: bool) -> Dropout | None:
        """Dropout of the parts that this device has; every use of it draws a key of its own."""
        config, (batch, length) = self.config, tokens.shape
        rates = (config.embedding_dropout, config.hidden_dropout, config.attention_dropout)
        if deterministic or not any(rates):
            return None
        return Dropout(
            self.make_rng("dropout"),
            local_offset(BATCH_AXES, batch),
            local_offset(LENGTH_AXES, length),
            local_offset(("tensor",), config.num_attention_heads // parts("tensor")),
        )

    def _run_layers(
        self,
        hidden: Float[Array, "B L D"],
        prefix_length: Int[Array, "#B"] | None,
        dropout: Dropout | None,
        attention_mask: Bool[Array, "#B 1 L M"] | Int[Array, "#B 1 L M"] | None,
    ) -> Float[Array, "B L D"]:
        """All blocks in turn."""

        def run_block(block: Block, hidden: Float[Array, "B L D"], layer: Int[Array, ""]):
            hidden = constrain(hidden, HIDDEN_AXES)
            layer_dropout = dropout and dropout.of_layer(layer)
            return block(hidden, prefix_length, layer_dropout, attention_mask)[0]

        # The loop already keeps the compiler from merging what is computed twice.
        policy = remat_policy(self.config.remat)
        if policy is not None:
            run_block = nn.remat(run_block, prevent_cse=False, policy=policy)

        def step(block: Block, hidden: Float[Array, "B L D"], layer: Int[Array, ""]):
            return run_block(block, hidden, layer), None

        scan = nn.scan(
            step,
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True},
            length=self.config.num_layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        hidden, _ = scan(self.layers, hidden, jnp.arange(self.config.num_layers))
        return constrain(hidden, HIDDEN_AXES)
