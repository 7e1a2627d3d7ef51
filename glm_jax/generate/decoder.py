"""A network prepared for decoding, and its compiled programs.

A few programs serve all texts: prompts are padded to a few lengths, caches have a few sizes of
which only the pages in use cost time, and all sampling settings are array arguments.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree

from glm_jax.generate.prompt import Prompt
from glm_jax.model import GLM, GLMConfig, decoding_network, decoding_params
from glm_jax.model.decode_kernels.layers import kernels_for
from glm_jax.model.decoding import DecodingGLM
from glm_jax.model.kv_cache import Cache, empty_cache, put_prompt, put_prompts
from glm_jax.model.paged_attention import PAGE_SIZE, CacheLayout, cache_layout
from glm_jax.parallel.layout import BATCH_AXES, constrain

MIN_CACHE_SIZE = 1024


@dataclasses.dataclass(frozen=True)
class Decoder:
    """A network, its parameters layer by layer, and the tokens that start and end a blank.

    Attributes:
      model: the network.
      params: as `by_layer` gives them.
      blank_start: the token that starts every blank, sop.
      ends: the tokens that end a blank.
      mesh: the mesh that the parameters are sharded over; None for a single device.
      prompt_multiple: prompts are padded to a multiple of this, with a program for each length;
        None for powers of two, which are few.
    """

    model: DecodingGLM
    params: PyTree
    blank_start: int
    ends: tuple[int, ...]
    mesh: jax.sharding.Mesh | None
    prompt_multiple: int | None = None

    def new_cache(self, num_rows: int, num_slots: int) -> Cache:
        """An empty cache of `num_rows` rows and `cache_size(num_slots)` slots."""
        slots, heads = cache_size(num_slots), self.model.config.num_attention_heads
        shards = 1 if self.mesh is None else self.mesh.shape["tensor"]
        layout = cache_layout(self.device.platform, slots, heads, shards)
        with self.on_mesh():
            return _new_cache(self.model, num_rows, slots, layout)

    def read(self, cache: Cache, prompt: Prompt, rows: Bool[np.ndarray, "B"]) -> Cache:
        """Runs one text and puts it into the first slots of some rows of a cache.

        The last of what is written is not run; nor is the blank's start, where nothing is. The
        given cache is donated.
        """
        tokens, numbers = self._tokens_to_run([prompt], 1)
        with self.on_mesh():
            return _read(self.model, self.params, cache, tokens, numbers, rows)

    @property
    def device(self) -> Any:
        """One of the devices that have parameters."""
        return _device_of(self.params)

    @property
    def num_shards(self) -> int:
        """Over how many devices the rows of a cache are sharded, if their number allows it."""
        return 1 if self.mesh is None else math.prod(self.mesh.shape[axis] for axis in BATCH_AXES)

    def read_texts(self, cache: Cache, prompts: Sequence[Prompt], rows: Sequence[int]) -> Cache:
        """Runs several texts as `read` does, each into one row of a cache.

        The given cache is donated. `num_shards` texts are run at a time, one on each device.

        Args:
          cache: of B rows.
          prompts: no more than `num_shards`.
          rows: of each text its row.
        """
        tokens, numbers = self._tokens_to_run(prompts, self.num_shards)
        text_of_row = np.full(cache[0].key.shape[1], -1, np.int32)
        for number, (_, row) in enumerate(zip(prompts, rows, strict=True)):
            text_of_row[row] = number
        with self.on_mesh():
            return _read_texts(self.model, self.params, cache, tokens, numbers, text_of_row)

    def _tokens_to_run(
        self, prompts: Sequence[Prompt], num_rows: int
    ) -> tuple[Int[np.ndarray, "R L"], Int[np.ndarray, "R 4"]]:
        """The padded tokens of texts, and of each its numbers.

        These are the length of Part A, all tokens, the position of the mask whose blank is partly
        written, and what is added to it for every token.
        """
        ids = [[*p.ids, self.blank_start, *p.written][:-1] for p in prompts]
        tokens = np.zeros((num_rows, self.padded_size(max(map(len, ids)))), np.int32)
        numbers = np.tile(np.asarray([1, 1, 0, 0], np.int32), (num_rows, 1))
        for row, (prompt, text) in enumerate(zip(prompts, ids, strict=True)):
            tokens[row, : len(text)] = text
            mask = prompt.masks[0] if prompt.written else 0
            numbers[row] = (len(prompt.ids), len(text), mask, prompt.position_step)
        return tokens, numbers

    def padded_size(self, length: int) -> int:
        """The padded length of a prompt."""
        if self.prompt_multiple is None:
            return prompt_size(length)
        return max(-(-length // self.prompt_multiple), 1) * self.prompt_multiple

    def on_mesh(self) -> Any:
        """A context in which programs shard their arrays over the mesh."""
        return contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh)


def make_decoder(
    model: GLM,
    params: PyTree,
    special: Mapping[str, int],
    *,
    ends: Sequence[str] = ("eop", "eos"),
) -> Decoder:
    """Prepares a network for decoding.

    Args:
      model: the network.
      params: its parameters, which are copied into one tree per layer.
      special: ids of the special tokens by the original's names.
      ends: names of the tokens that end a blank.
    """
    decoding = _decoding_params(model.config, params)
    kernels = kernels_for(_device_of(decoding).device_kind)
    return Decoder(
        decoding_network(model.config, kernels=kernels),
        decoding,
        special["sop"],
        tuple(special[name] for name in ends),
        _mesh_of(params),
    )


def prompt_size(length: int) -> int:
    """The padded length of a prompt: 64, 128, 256, ..."""
    return max(PAGE_SIZE, power_of_two(length))


def cache_size(num_slots: int) -> int:
    """The number of slots rounded up to a cache size: 1024, 2048, 4096, ..."""
    return max(MIN_CACHE_SIZE, power_of_two(num_slots))


def power_of_two(number: int) -> int:
    """The smallest power of two that is at least `number`."""
    return 1 << max(number - 1, 0).bit_length()


def network(model: DecodingGLM, params: PyTree, *inputs: Any, method: str) -> Any:
    """One method of the network on its parameters."""
    return model.apply({"params": params}, *inputs, method=method)


def _device_of(params: PyTree) -> Any:
    """One of the devices that have parameters."""
    return next(iter(jax.tree.leaves(params)[0].devices()))


def _mesh_of(params: PyTree) -> jax.sharding.Mesh | None:
    """The mesh that parameters are sharded over, if any."""
    sharding = getattr(jax.tree.leaves(params)[0], "sharding", None)
    mesh = getattr(sharding, "mesh", None)
    return mesh if isinstance(mesh, jax.sharding.Mesh) else None


@partial(jax.jit, static_argnums=0)
def _decoding_params(config: GLMConfig, params: PyTree) -> PyTree:
    return decoding_params(config, params)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _new_cache(model: DecodingGLM, num_rows: int, num_slots: int, layout: CacheLayout) -> Cache:
    return empty_cache(model.config, num_rows, num_slots, layout)


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def _read(
    model: DecodingGLM,
    params: PyTree,
    cache: Cache,
    tokens: Int[Array, "1 L"],
    numbers: Int[Array, "1 4"],
    rows: Bool[Array, "B"],
) -> Cache:
    return put_prompt(cache, _prompt_cache(model, params, tokens, numbers), rows)


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def _read_texts(
    model: DecodingGLM,
    params: PyTree,
    cache: Cache,
    tokens: Int[Array, "R L"],
    numbers: Int[Array, "R 4"],
    text_of_row: Int[Array, "B"],
) -> Cache:
    tokens = constrain(tokens, ("batch", "replicated"))
    return put_prompts(cache, _prompt_cache(model, params, tokens, numbers), text_of_row)


def _prompt_cache(
    model: DecodingGLM, params: PyTree, tokens: Int[Array, "R L"], numbers: Int[Array, "R 4"]
) -> Cache:
    """The cache of texts; `numbers` as in `_tokens_to_run`."""
    length, end, mask, step = jnp.split(numbers, 4, axis=1)
    index = jnp.arange(tokens.shape[1])
    inside = jnp.maximum(index - length + 1, 0)
    positions = jnp.where(inside > 0, mask + step * (inside - 1), index)
    position_ids = jnp.stack([positions, inside], axis=1)
    position_ids = jnp.where((index < end)[:, None], position_ids, 0)
    _, prompt = network(model, params, tokens, position_ids, length[:, 0], method="read")
    return cast(Cache, prompt)
