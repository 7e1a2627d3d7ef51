"""The key/value cache of decoding.

The original keeps the inputs of every layer and computes keys and values from them at every step;
keeping keys and values gives the same outputs.

A cache consists of pages of 64 slots. Attention reads only the pages in use, so a large cache costs
memory and no time, and one program serves texts of all lengths.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from glm_jax.model.attention.choose import Attention
from glm_jax.model.config import GLMConfig
from glm_jax.model.paged_attention import PAGE_SIZE, LayerCache, PrefixKeyValue, attend_pages
from glm_jax.parallel.layout import constrain

_AXES = ("pages", "batch", "heads_out", "slots", "head")


# One entry per layer: separate arrays are updated in place, slices of one array would be copied.
Cache = tuple[LayerCache, ...]


@runtime_checkable
class KVCache(Protocol):
    """Attention of one layer with cached keys and values."""

    def attend(
        self,
        query: Float[Array, "B L H K"],
        key: Float[Array, "B L H K"],
        value: Float[Array, "B L H K"],
        prefix: PrefixKeyValue | None = None,
    ) -> tuple[Float[Array, "B L H K"], LayerCache]:
        """Context of the queries, and the cache with the new keys and values.

        A prefix is not part of the cache.
        """
        ...


class NewKVCache(NamedTuple):
    """A cache that is created from Part A, which attends to itself.

    Attributes:
      attention: computes the context of Part A.
      prefix_length: number of positions of each example that are no padding.
    """

    attention: Attention
    prefix_length: Int[Array, "B"]

    def attend(
        self, query, key, value, prefix: PrefixKeyValue | None = None
    ) -> tuple[Float[Array, "B L H K"], LayerCache]:
        """As `KVCache.attend`; L is a multiple of the page size."""
        seen, length = (key, value), 0 if prefix is None else prefix.length
        if prefix is not None:
            seen = prefix.before(key, value)
        context = self.attention(query, *seen, self.prefix_length + length, length)
        return context, LayerCache(_pages(key), _pages(value))


class PagedKVCache(NamedTuple):
    """New positions are written into a cache and attend to its visible slots.

    Attributes:
      cache: of this layer.
      start: slot of each example's first new position.
      visible: which slots each new position sees, M = 64 P.
      num_pages: pages up to the last one with a visible slot.
    """

    cache: LayerCache
    start: Int[Array, "B"]
    visible: Bool[Array, "B 1 L M"]
    num_pages: Int[Array, ""]

    def attend(
        self, query, key, value, prefix: PrefixKeyValue | None = None
    ) -> tuple[Float[Array, "B L H K"], LayerCache]:
        """As `KVCache.attend`; new positions beyond the last slot are not written."""
        slots = self.start[:, None] + jnp.arange(key.shape[1])
        indices = jnp.stack([slots // PAGE_SIZE, slots % PAGE_SIZE], axis=-1)  # [B, L, 2]
        cache = LayerCache(
            *(
                constrain(_write(old, indices, new), _AXES)
                for old, new in zip(self.cache, (key, value), strict=True)
            )
        )
        return attend_pages(query, cache, self.visible, self.num_pages, prefix), cache


def pages_in_use(visible: Bool[Array, "B 1 L M"]) -> Int[Array, ""]:
    """The number of leading pages that hold every visible slot."""
    page = jnp.arange(visible.shape[-1]) // PAGE_SIZE
    return jnp.max(jnp.where(visible, page, 0)) + 1


def empty_cache(config: GLMConfig, batch_size: int, num_slots: int) -> Cache:
    """A cache of zeros in the compute dtype, sharded over the mesh under `jax.set_mesh`.

    Args:
      config: the network.
      batch_size: B.
      num_slots: M, the maximum number of positions of an example, Part A and Part B together; a
        multiple of the page size.
    """
    heads, size = config.num_attention_heads, config.head_size
    shape = (num_slots // PAGE_SIZE, batch_size, heads, PAGE_SIZE, size)
    dtype = jnp.dtype(config.compute_dtype)

    def zeros() -> Float[Array, "P B H 64 K"]:
        return constrain(jnp.zeros(shape, dtype), _AXES)

    # No two entries share an array, so that all can be donated.
    return tuple(LayerCache(zeros(), zeros()) for _ in range(config.num_layers))


def put_prompt(cache: Cache, prompt: Cache, rows: Bool[Array, "B"]) -> Cache:
    """Writes the cache of one text into the first pages of some rows of another cache.

    Args:
      cache: of B rows.
      prompt: of one row, with as many pages or fewer.
      rows: True for rows to write.
    """
    chosen = rows[:, None, None, None]

    def put(old: Float[Array, "P B H 64 K"], new: Float[Array, "Q 1 H 64 K"]):
        pages = new.shape[0]
        return constrain(old.at[:pages].set(jnp.where(chosen, new, old[:pages])), _AXES)

    return jax.tree.map(put, cache, prompt)


def put_prompts(cache: Cache, prompts: Cache, text_of_row: Int[Array, "B"]) -> Cache:
    """Writes the caches of several texts into the first pages of some rows of another cache.

    Args:
      cache: of B rows.
      prompts: of R rows, with as many pages or fewer.
      text_of_row: the row of `prompts` for each row of `cache`; -1 for rows to leave as they are.
    """
    chosen = (text_of_row >= 0)[:, None, None, None]

    def put(old: Float[Array, "P B H 64 K"], new: Float[Array, "Q R H 64 K"]):
        pages = new.shape[0]
        placed = constrain(jnp.take(new, jnp.maximum(text_of_row, 0), axis=1), _AXES)
        return constrain(old.at[:pages].set(jnp.where(chosen, placed, old[:pages])), _AXES)

    return jax.tree.map(put, cache, prompts)


def _pages(array: Float[Array, "B L H K"]) -> Float[Array, "P B H 64 K"]:
    batch, length, heads, size = array.shape
    pages = array.reshape(batch, length // PAGE_SIZE, PAGE_SIZE, heads, size)
    return constrain(pages.transpose(1, 0, 3, 2, 4), _AXES)


def _write(
    pages: Float[Array, "P B H 64 K"], indices: Int[Array, "B L 2"], new: Float[Array, "B L H K"]
) -> Float[Array, "P B H 64 K"]:
    """Writes `new` at the (page, slot) `indices` of each example.

    Unlike plain indexing, the scatter names the axis of examples as a batch axis of cache and
    indices: so nothing is gathered where examples are sharded over devices, and nothing is
    transposed as under vmap.
    """
    return jax.lax.scatter(
        pages,
        indices,
        new.astype(pages.dtype),
        jax.lax.ScatterDimensionNumbers(
            update_window_dims=(2, 3),
            inserted_window_dims=(0, 3),
            scatter_dims_to_operand_dims=(0, 3),
            operand_batching_dims=(1,),
            scatter_indices_batching_dims=(0,),
        ),
        unique_indices=True,
        mode=jax.lax.GatherScatterMode.FILL_OR_DROP,
    )
