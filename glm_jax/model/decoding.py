"""GLM with separate, unstacked layers, for decoding."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

from glm_jax.model.attention.choose import attention_function
from glm_jax.model.decode_kernels.attention_half import Slots
from glm_jax.model.decode_kernels.layers import DecodeKernels, Network, run_step
from glm_jax.model.dropout import Dropout
from glm_jax.model.glm import GLM
from glm_jax.model.kv_cache import Cache, KVCache, NewKVCache, PagedKVCache, slots_in_use
from glm_jax.model.paged_attention import LayerCache
from glm_jax.model.quantized import quantized
from glm_jax.model.quantized_product import column_blocks
from glm_jax.model.row_linear import RowLinear, few_rows_product
from glm_jax.model.self_attention import AttentionExtras
from glm_jax.parallel.layout import constrain


class DecodingGLM(GLM):
    """The same network as `GLM`, for parameters as `by_layer` gives them.

    A loop over stacked layers copies each layer's parameters out of the stack. In training that is
    negligible; in decoding, where reading the parameters takes most of the time, the copy would
    triple it.

    Attributes:
      kernels: of TPUs, for a step of one new position; None for plain operations.
    """

    kernels: DecodeKernels | None = None

    # Of `HalfBlock`.
    residual_scale: ClassVar[float | None] = None

    def setup(self) -> None:
        super().setup()
        linear = quantized(RowLinear, self.config.quantization)
        self.blocks = [self.make_block(linear) for _ in range(self.config.num_layers)]

    def read(
        self,
        tokens: Int[Array, "B L"],
        position_ids: Int[Array, "B 2 L"] | Int[Array, "B L"],
        prefix_length: Int[Array, "B"],
    ) -> tuple[Float[Array, "B L D"], Cache]:
        """Runs Part A, padded at its end to a multiple of the page size.

        Args:
          tokens, position_ids: as in `GLM.__call__`.
          prefix_length: how many of the tokens are no padding.

        Returns:
          Output of the final LayerNorm, and a cache of the L positions.
        """
        kv_cache = NewKVCache(attention_function(self.config.attention), prefix_length)
        hidden = self._embed(tokens, position_ids, None)
        kv_caches = (kv_cache,) * self.config.num_layers
        return self._run_with_cache(hidden, kv_caches, self.extras(position_ids))

    def extend(
        self,
        tokens: Int[Array, "B L"],
        position_ids: Int[Array, "B 2 L"] | Int[Array, "B L"],
        cache: Cache,
        start: Int[Array, "B"] | Int[Array, ""] | int,
        attention_mask: Bool[Array, "#B 1 L M"] | Int[Array, "#B 1 L M"],
    ) -> tuple[Float[Array, "B L D"], Cache]:
        """Runs further positions with the cached keys and values of the earlier ones.

        The result is that of one pass over the full sequence. L is 1 for a step of
        decoding and more for known tokens; `start` may be traced, so that one compiled step serves
        all.

        Args:
          tokens: the new positions only.
          position_ids: theirs, as in `GLM.__call__`.
          cache: M slots for each example, from `empty_cache` or the call before.
          start: the slot of each example's first new position. Slots beyond M are not written.
          attention_mask: 1 where a new position sees a slot; the new positions are in slots
            `start` to `start + L - 1` when it is applied. `memory_mask` makes the usual one.

        Returns:
          Output of the final LayerNorm for the new positions, and the cache with them.
        """
        batch = tokens.shape[0]
        start = jnp.broadcast_to(start, (batch,))
        visible = jnp.broadcast_to(attention_mask.astype(bool), (batch, *attention_mask.shape[1:]))
        num_slots = slots_in_use(visible)
        hidden = self._embed(tokens, position_ids, None)
        kv_caches = [PagedKVCache(layer, start, visible, num_slots) for layer in cache]
        return self._run_with_cache(hidden, kv_caches, self.extras(position_ids))

    def next_logits(
        self,
        tokens: Int[Array, "B 1"],
        position_ids: Int[Array, "B 2 1"] | Int[Array, "B 1"],
        cache: Cache,
        start: Int[Array, "B"],
        attention_mask: Bool[Array, "B 1 1 M"],
    ) -> tuple[Float[Array, "B V"], Cache]:
        """`last_logits` of `extend` for one new position of every example, which sees itself."""
        inputs = (tokens, position_ids, cache, start, attention_mask)
        if self.kernels is None or not self._fits(cache):
            hidden, cache = self.extend(*inputs)
            return self.last_logits(hidden[:, 0]), cache
        layers = [block.variables["params"] for block in self.blocks]
        final_norm = self.final_layernorm.variables["params"]
        network = Network(layers, final_norm, self.embedding_table())
        extras = self.extras(position_ids)
        slots = Slots(
            start,
            attention_mask[:, 0].astype(jnp.int32),
            slots_in_use(attention_mask),
            None if extras is None else extras.rotation,
        )
        hidden = self._embed(tokens, position_ids, None)[:, 0]
        state = (hidden, network, cache, slots)
        logits, cache = run_step(*state, self.config, self.kernels, self.residual_scale)
        return self.scores(logits), cache

    def last_logits(self, hidden: Float[Array, "B D"]) -> Float[Array, "B V"]:
        """`logits` of one position of every example."""
        logits = few_rows_product(hidden, self.embedding_table())
        # Without this the constraint of `scores` would gather the table, for logits of its rows.
        return self.scores(constrain(logits, ("batch", "vocab_out")))

    def scores(self, logits: Float[Array, "B V"]) -> Float[Array, "B V"]:
        """Logits as tokens are chosen by: every device chooses for a part of the rows."""
        return constrain(logits, ("logits_batch", "replicated"))

    def _fits(self, cache: Cache) -> bool:
        """Whether the kernels support this network, on this mesh, with a cache of this layout."""
        assert self.kernels is not None
        mesh_shape = jax.sharding.get_abstract_mesh().shape
        _, batch, _, page_size, width = cache[0].key.shape
        shard = self.kernels.shard(self.config, mesh_shape)
        if shard is None or batch > shard.max_batch_size:
            return False
        return page_size == cache[0].num_slots and width == shard.attention_width

    def _run_with_cache(
        self,
        hidden: Float[Array, "B L D"],
        kv_caches: Iterable[KVCache],
        extras: AttentionExtras | None,
    ) -> tuple[Float[Array, "B L D"], Cache]:
        layers: list[LayerCache] = []
        hidden = constrain(hidden, ("batch", "replicated", "replicated"))
        for block, kv_cache in zip(self.blocks, kv_caches, strict=True):
            hidden, layer = block(hidden, None, None, None, kv_cache, extras)
            assert layer is not None
            layers.append(layer)
        return self.final_layernorm(hidden), tuple(layers)

    def _run_layers(
        self,
        hidden: Float[Array, "B L D"],
        prefix_length: Int[Array, "#B"] | None,
        dropout: Dropout | None,
        attention_mask: Bool[Array, "#B 1 Q M"] | Int[Array, "#B 1 Q M"] | None,
        extras: AttentionExtras | None,
        positions: Int[Array, "B T"] | None = None,
    ) -> Float[Array, "B L D"] | Float[Array, "B T D"]:
        for layer, block in enumerate(self.blocks):
            layer_dropout = dropout and dropout.of_layer(jnp.asarray(layer))
            inputs = (prefix_length, layer_dropout, attention_mask, None, extras)
            is_last = layer == len(self.blocks) - 1
            hidden, _ = block(hidden, *inputs, positions if is_last else None)
        return hidden


def in_compute_dtype(params: PyTree, dtype: str) -> PyTree:
    """The parameters in the dtype that the network computes with, so that no step casts them.

    LayerNorm computes in float32, so its parameters stay as they are. Integers do, too.
    """

    def cast(keys: tuple[Any, ...], leaf: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        in_float32 = any("layernorm" in key.key for key in keys)
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf.astype(dtype) if floating and not in_float32 else leaf

    return jax.tree_util.tree_map_with_path(cast, params)


def by_layer(params: PyTree) -> PyTree:
    """The parameters of a `GLM` as `DecodingGLM` takes them: a copy, one tree per layer."""
    stacked = params["layers"]
    num_layers = len(jax.tree.leaves(stacked)[0])
    others = {name: leaf for name, leaf in params.items() if name != "layers"}

    def of_layer(keys: tuple[Any, ...], leaf: Shaped[Array, "N ..."], number: int):
        if keys[-1].key != "kernel":
            return leaf[number]
        quantized = leaf.dtype == jnp.int8
        return column_blocks(leaf[number]) if quantized else jnp.moveaxis(leaf[number], 0, -1)

    layers = {
        f"blocks_{number}": jax.tree_util.tree_map_with_path(
            partial(of_layer, number=number), stacked
        )
        for number in range(num_layers)
    }
    return others | layers
