"""The variant with relative positions: a Transformer-XL, which the original's code also supports.

No published model uses it. It has no dropout, and a memory of layer inputs instead of a key/value
cache.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from glm_jax.errors import UsageError
from glm_jax.model.attention.mask import memory_mask
from glm_jax.model.attention.xla import MASKED_SCORE
from glm_jax.model.config import COMPUTE_DTYPES, check_heads
from glm_jax.model.embeddings import WordEmbedding, unembed
from glm_jax.model.gathering import ParamSpecs, specs_of_layer, with_gathered_parameters
from glm_jax.model.layers import (
    INITIAL_STANDARD_DEVIATION,
    MLP,
    Linear,
    layer_norm,
    residual_standard_deviation,
    split_heads,
)
from glm_jax.model.remat import rematerialize
from glm_jax.parallel.collectives import (
    axis_size,
    copy_to_tensor_parallel,
    gather_from_tensor_parallel,
    local_size,
    scatter_to_tensor_parallel,
)
from glm_jax.validation import at_least, choice, positive

LONGEST_WAVELENGTH = 10000.0


@dataclasses.dataclass(frozen=True)
class RelativeGLMConfig:
    """The dimensions of one network with relative positions, named as in `GLMConfig`.

    Raises:
      UsageError: a field is out of its range.
    """

    vocab_size: int
    num_layers: int
    hidden_size: int
    num_attention_heads: int
    layernorm_epsilon: float = 1e-5
    compute_dtype: str = "float32"

    def __post_init__(self) -> None:
        at_least("model", self, 1, "vocab_size", "num_layers", "hidden_size", "num_attention_heads")
        check_heads(self.hidden_size, self.num_attention_heads)
        if self.hidden_size % 2:
            raise UsageError(
                f"model.hidden_size is {self.hidden_size}; expected an even number, for sines and "
                "cosines"
            )
        positive("model", self, "layernorm_epsilon")
        choice("model", self, "compute_dtype", COMPUTE_DTYPES)

    @property
    def head_size(self) -> int:
        """Width of one attention head, K."""
        return self.hidden_size // self.num_attention_heads


def shift_to_keys(scores: Float[Array, "B H L M"]) -> Float[Array, "B H L M"]:
    """From scores by distance, M - 1 first and 0 last, to scores by key.

    The last query is at the last key. Query i is L - 1 - i positions before it, so its row moves
    left by as much. The entries that fill up on the right belong to keys after the query; as in the
    original they are the start of the next row, and count only under a mask that shows such keys.

    Source: Dai et al. (2019), appendix B; original code.
    """
    batch, heads, length, num_keys = scores.shape
    # Read again with one number more per row, every row starts one later than the one above.
    padded = jnp.pad(scores, ((0, 0), (0, 0), (0, 0), (1, 0)))
    skewed = padded.reshape(batch, heads, num_keys + 1, length)[:, :, 1:]
    return skewed.reshape(scores.shape)


class RelativeAttention(nn.Module):
    """Attention by content and by distance, each with a bias on the query."""

    config: RelativeGLMConfig

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        memory: Float[Array, "B P D"],
        distances: Float[Array, "M D"],
        biases: tuple[Float[Array, "H K"], Float[Array, "H K"]],
        visible: Bool[Array, "#B 1 L M"],
    ) -> Float[Array, "B L D"]:
        config = self.config
        dtype, width = config.compute_dtype, hidden.shape[2]
        projected = Linear(
            (3, width),
            ("hidden_in", "query_key_value", "heads_out"),
            INITIAL_STANDARD_DEVIATION,
            dtype,
            name="query_key_value",
        )(jnp.concatenate([memory, hidden], axis=1))  # [B, P + L, D] -> [B, M, 3, D]
        query, key, value = split_heads(projected, config.head_size)
        query = query[:, memory.shape[1] :]
        relative = Linear(
            (width,),
            ("hidden_in", "heads_out"),
            INITIAL_STANDARD_DEVIATION,
            dtype,
            name="relative",
        )(distances).reshape(distances.shape[0], -1, config.head_size)  # [M, D] -> [M, H, K]

        content_bias, distance_bias = (bias.astype(query.dtype) for bias in biases)
        product = partial(jnp.einsum, preferred_element_type=jnp.float32)
        by_content = product("blhk,bmhk->bhlm", query + content_bias, key)
        by_distance = product("blhk,mhk->bhlm", query + distance_bias, relative)
        scores = (by_content + shift_to_keys(by_distance)) * config.head_size**-0.5
        probabilities = jax.nn.softmax(jnp.where(visible, scores, MASKED_SCORE), axis=-1)
        context = jnp.einsum("bhlm,bmhk->blhk", probabilities.astype(value.dtype), value)
        return Linear(
            (width,),
            ("heads_in", "hidden"),
            residual_standard_deviation(config.num_layers),
            dtype,
            name="output",
        )(context.reshape(*hidden.shape[:2], -1))  # [B, L, H, K] -> [B, L, D]


class RelativeBlock(nn.Module):
    """One pre-LayerNorm block; memory, residual stream of earlier passes, is normalised too."""

    config: RelativeGLMConfig

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        memory: Float[Array, "B P D"],
        distances: Float[Array, "M D"],
        biases: tuple[Float[Array, "H K"], Float[Array, "H K"]],
        visible: Bool[Array, "#B 1 L M"],
    ) -> Float[Array, "B L D"]:
        config = self.config
        norm = partial(layer_norm, config.layernorm_epsilon, config.compute_dtype)
        attention_norm, copy = norm("attention_layernorm"), copy_to_tensor_parallel
        hidden = hidden + RelativeAttention(config, name="attention")(
            copy(attention_norm(hidden)),
            copy(attention_norm(memory)),
            copy(distances),
            biases,
            visible,
        )
        deviation = residual_standard_deviation(config.num_layers)
        mlp = MLP(4 * config.hidden_size, deviation, config.compute_dtype, name="mlp")
        hidden = hidden + mlp(copy(norm("mlp_layernorm")(hidden)))
        self.sow("intermediates", "output", hidden)
        return hidden


class RelativeGLM(nn.Module):
    """GLM with the positions of Transformer-XL (Dai et al., 2019) instead of position tables.

    `model.apply({"params": params}, tokens, prefix_length)` gives logits. Parameters are stacked,
    intermediates recorded and shards passed inside `jax.shard_map` as in `GLM`; sequences can't be
    sharded.

    Attributes:
      config: dimensions and numerics.
      param_specs: inside `jax.shard_map`, how the parameters are sharded; None elsewhere.
    """

    config: RelativeGLMConfig
    param_specs: ParamSpecs | None = None

    def setup(self) -> None:
        config = self.config
        self.embeddings = WordEmbedding(config.vocab_size, config.hidden_size, config.compute_dtype)
        nn.share_scope(self, self.embeddings)
        heads = (local_size("heads_out", config.num_attention_heads), config.head_size)
        bias = nn.with_logical_partitioning(nn.initializers.zeros, ("heads_out", "head"))
        self.content_bias: Any = self.param("content_bias", bias, heads)
        self.distance_bias: Any = self.param("distance_bias", bias, heads)
        self.inverse_frequency = self.param("inverse_frequency", self._inverse_frequency)
        self.layers = RelativeBlock(config)
        self.final_layernorm = layer_norm(config.layernorm_epsilon, config.compute_dtype)

    def _inverse_frequency(self, _key: Array) -> Float[Array, "frequencies"]:
        """A constant, but checkpoints hold it, rounded to their dtype."""
        size = self.config.hidden_size
        return LONGEST_WAVELENGTH ** -(jnp.arange(0, size, 2) / size)

    def __call__(
        self,
        tokens: Int[Array, "B L"],
        prefix_length: Int[Array, "#B"],
        attention_mask: Shaped[Array, "#B 1 L M"] | None = None,
        memory: Float[Array, "N B P D"] | None = None,
    ) -> Float[Array, "B L V"]:
        """Float32 logits; arguments as in `hidden_states`."""
        return self.logits(self.hidden_states(tokens, prefix_length, attention_mask, memory))

    def hidden_states(
        self,
        tokens: Int[Array, "B L"],
        prefix_length: Int[Array, "#B"],
        attention_mask: Shaped[Array, "#B 1 L M"] | None = None,
        memory: Float[Array, "N B P D"] | None = None,
    ) -> Float[Array, "B L D"]:
        """Output of the final LayerNorm, in the compute dtype.

        Args:
          tokens: the sequence.
          prefix_length: leading tokens that every position sees; all of the memory is seen too.
          attention_mask: 1 where a position (third axis) sees one of the M = P + L positions of
            memory and sequence; it replaces the prefix.
          memory: the inputs of every layer at the P positions before this sequence: the residual
            stream of earlier passes without its last entry.
        """
        if axis_size("context") > 1:
            raise UsageError(
                "relative positions need complete sequences; expected mesh.context = 1"
            )
        config = self.config
        batch, length = tokens.shape
        if memory is None:
            shape = (config.num_layers, batch, 0, config.hidden_size)
            memory = jnp.zeros(shape, jnp.dtype(config.compute_dtype))
        num_keys = memory.shape[2] + length
        if attention_mask is None:
            start = jnp.full((1,), memory.shape[2])
            attention_mask = memory_mask(start, length, num_keys, prefix_length=prefix_length)
        visible, distances = attention_mask.astype(bool), self._distances(num_keys)
        embed = self._with_gathered_table(WordEmbedding.embed_tokens)
        hidden = embed(self.embeddings, scatter_to_tensor_parallel(tokens, 1))
        hidden = gather_from_tensor_parallel(hidden, 1)  # [B, L, D]
        self.sow("intermediates", "embedding", hidden)

        biases = (self.content_bias, self.distance_bias)

        def run_block(block: RelativeBlock, hidden: Float[Array, "B L D"], memory: Array):
            return block(hidden, memory, distances, biases, visible)

        if self.param_specs is not None:
            specs = specs_of_layer(self.param_specs["layers"])
            run_block = with_gathered_parameters(run_block, specs, config.compute_dtype)
        run_block = rematerialize(run_block, "none", in_loop=True)

        def step(block: RelativeBlock, hidden: Float[Array, "B L D"], memory: Array):
            return run_block(block, hidden, memory), None

        scan = nn.scan(
            step,
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True},
            length=config.num_layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        hidden, _ = scan(self.layers, hidden, memory)
        return self.final_layernorm(hidden)

    def logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Float32 logits of hidden states of any leading shape, as `GLM.logits`."""
        return unembed(hidden, self.embedding_table())

    def embedding_table(self) -> Float[Array, "V D"]:
        """The word embedding in the compute dtype, on every device."""
        return self._with_gathered_table(WordEmbedding.embedding_table)(self.embeddings)

    def _with_gathered_table(self, function: Callable[..., Array]) -> Callable[..., Array]:
        specs = self.param_specs and {"word_embedding": self.param_specs["word_embedding"]}
        dtype = self.config.compute_dtype
        return with_gathered_parameters(function, specs, dtype, over_tensor=True)

    def _distances(self, num_keys: int) -> Float[Array, "M D"]:
        """Sinusoids of the distances M - 1 to 0: all sines, then all cosines."""
        distance = jnp.arange(num_keys - 1, -1, -1, dtype=jnp.float32)
        angles = distance[:, None] * self.inverse_frequency
        sinusoids = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
        return sinusoids.astype(jnp.dtype(self.config.compute_dtype))
