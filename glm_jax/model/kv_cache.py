"""The key/value cache of decoding.

The original keeps the inputs of every layer and computes keys and values from them at every step;
keeping keys and values gives the same outputs.

Attention reads only the slots in use, a page or a part of one at a time, so a large cache costs
memory and little time, and one program serves texts of all lengths. See `paged_attention` for the
layout.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from glm_jax.model.attention.choose import Attention
from glm_jax.model.config import GLMConfig
from glm_jax.model.paged_attention import (
    PAGE_SIZE,
    CacheLayout,
    LayerCache,
    PrefixKeyValue,
    attend_pages,
    in_groups,
)
from glm_jax.parallel.layout import constrain

_AXES = ("pages", "batch", "heads_out", "slots", "head")

DEFAULT_LAYOUT = CacheLayout()

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
      visible: which slots each new position sees, M = S P.
      num_slots: slots up to the last visible one.
    """

    cache: LayerCache
    start: Int[Array, "B"]
    visible: Bool[Array, "B 1 L M"]
    num_slots: Int[Array, ""]

    def attend(
        self, query, key, value, prefix: PrefixKeyValue | None = None
    ) -> tuple[Float[Array, "B L H K"], LayerCache]:
        """As `KVCache.attend`; new positions beyond the last slot are not written."""
        slots = self.start[:, None] + jnp.arange(key.shape[1])
        cache = LayerCache(
            *(
                constrain(_write(old, slots, new), _AXES)
                for old, new in zip(self.cache, (key, value), strict=True)
            )
        )
        return attend_pages(query, cache, self.visible, self.num_slots, prefix), cache


def slots_in_use(visible: Bool[Array, "B 1 L M"]) -> Int[Array, ""]:
    """The number of leading slots that hold every visible one."""
    return jnp.max(jnp.where(visible, jnp.arange(visible.shape[-1]), 0)) + 1


def empty_cache(
    config: GLMConfig, batch_size: int, num_slots: int, layout: CacheLayout = DEFAULT_LAYOUT
) -> Cache:
    """A cache of zeros in the compute dtype, sharded over the mesh under `jax.set_mesh`.

    Args:
      config: the network.
      batch_size: B.
      num_slots: M, the maximum number of positions of an example, Part A and Part B together; a
        multiple of the page size.
      layout: how it is stored.
    """
    page_size, heads = layout
    groups, width = config.num_attention_heads // heads, config.head_size * heads
    shape = (num_slots // page_size, batch_size, groups, page_size, width)
    dtype = jnp.dtype(config.compute_dtype)

    def zeros() -> Float[Array, "P B G S W"]:
        return constrain(jnp.zeros(shape, dtype), _AXES)

    # No two entries share an array, so that all can be donated.
    return tuple(LayerCache(zeros(), zeros()) for _ in range(config.num_layers))


def put_prompt(cache: Cache, prompt: Cache, rows: Bool[Array, "B"]) -> Cache:
    """Writes the cache of one text into the first slots of some rows of another cache.

    Args:
      cache: of B rows.
      prompt: of one row, with as many slots or fewer, as `DecodingGLM.read` returns it.
      rows: True for rows to write.
    """
    return _put(cache, prompt, rows, jnp.zeros(rows.shape, jnp.int32))


def put_prompts(cache: Cache, prompts: Cache, text_of_row: Int[Array, "B"]) -> Cache:
    """Writes the caches of several texts into the first slots of some rows of another cache.

    Args:
      cache: of B rows.
      prompts: of R rows, with as many slots or fewer, as `DecodingGLM.read` returns them.
      text_of_row: the row of `prompts` for each row of `cache`; -1 for rows to leave as they are.
    """
    return _put(cache, prompts, text_of_row >= 0, jnp.maximum(text_of_row, 0))


def _put(
    cache: Cache, prompts: Cache, chosen: Bool[Array, "B"], text_of_row: Int[Array, "B"]
) -> Cache:
    chosen = chosen[:, None, None, None]

    def put(old: Float[Array, "P B G S W"], new: Float[Array, "Q R H 64 K"]):
        together = old.shape[3] // new.shape[3]
        full = len(new) // together
        if full:
            old = put_pages(old, 0, new[: full * together].reshape(full, together, *new.shape[1:]))
        if len(new) % together:
            old = put_pages(old, full, new[None, full * together :])
        return old

    def put_pages(
        old: Float[Array, "P B G S W"], first: int, new: Float[Array, "N T R H 64 K"]
    ) -> Float[Array, "P B G S W"]:
        joined = jax.vmap(partial(_joined, num_groups=old.shape[2]))(new)
        rows = constrain(jnp.take(joined, text_of_row, axis=1), _AXES)
        region = (slice(first, first + len(new)), *[slice(None)] * 2, slice(rows.shape[3]))
        return constrain(old.at[region].set(jnp.where(chosen, rows, old[region])), _AXES)

    return jax.tree.map(put, cache, prompts)


def _joined(pages: Float[Array, "Q R H 64 K"], num_groups: int) -> Float[Array, "R G M W"]:
    """Small pages as one, with the heads in groups."""
    count, batch, heads, slots, size = pages.shape
    together = pages.transpose(1, 2, 0, 3, 4).reshape(batch, heads, count * slots, size)
    return in_groups(together, num_groups)


def _pages(array: Float[Array, "B L H K"]) -> Float[Array, "P B H 64 K"]:
    batch, length, heads, size = array.shape
    pages = array.reshape(batch, length // PAGE_SIZE, PAGE_SIZE, heads, size)
    return constrain(pages.transpose(1, 0, 3, 2, 4), _AXES)


def _write(
    pages: Float[Array, "P B G S W"], slots: Int[Array, "B L"], new: Float[Array, "B L H K"]
) -> Float[Array, "P B G S W"]:
    """Writes `new` into the slots of each example.

    Unlike plain indexing, the scatter names the axis of examples as a batch axis of cache and
    indices: so nothing is gathered where examples are sharded over devices, and nothing is
    transposed as under vmap.
    """
    count, _, groups, size, width = pages.shape
    # With one page it is no index: the TPU compiler makes a loop of a scatter with three indices.
    one_page = count == 1
    indices = slots[..., None] if one_page else jnp.stack([slots // size, slots % size], axis=-1)
    written = jax.lax.scatter(
        pages[0] if one_page else pages,
        indices,
        new.astype(pages.dtype).reshape(*new.shape[:2], groups, width),
        jax.lax.ScatterDimensionNumbers(
            update_window_dims=(2, 3),
            inserted_window_dims=(2,) if one_page else (0, 3),
            scatter_dims_to_operand_dims=(2,) if one_page else (0, 3),
            operand_batching_dims=(0,) if one_page else (1,),
            scatter_indices_batching_dims=(0,),
        ),
        unique_indices=True,
        mode=jax.lax.GatherScatterMode.FILL_OR_DROP,
    )
    return written[None] if one_page else written
