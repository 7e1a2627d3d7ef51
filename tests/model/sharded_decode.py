"""Run by test_kv_cache.py in a process with eight virtual CPU devices; prints JSON.

Of a cache with a head in a row, of one with two, and of the kernels for TPUs, emulated.
"""

from __future__ import annotations

import json
import re
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from glm_jax.model import GLM, GLMConfig, decoding_network
from glm_jax.model.attention.mask import memory_mask
from glm_jax.model.decode_kernels.layers import DecodeKernels
from glm_jax.model.decoding import DecodingGLM, by_layer
from glm_jax.model.kv_cache import empty_cache
from glm_jax.model.paged_attention import CacheLayout, in_groups
from glm_jax.parallel.batches import batch_sharding
from glm_jax.parallel.layout import parameter_shardings
from glm_jax.parallel.mesh import MeshConfig, make_mesh

CONFIG = GLMConfig(
    vocab_size=128, num_layers=2, hidden_size=32, num_attention_heads=4, max_sequence_length=32
)
MODEL = GLM(CONFIG)
BATCH, LENGTH, SLOTS = 8, 3, 64


def extend(params, cache, tokens, position_ids, start):
    mask = memory_mask(start, LENGTH, SLOTS)
    inputs = (tokens, position_ids, cache, start, mask)
    return DecodingGLM(CONFIG).apply({"params": params}, *inputs, method="extend")


def make_cache(layout):
    return empty_cache(CONFIG, BATCH, SLOTS, layout)


def main() -> None:
    draw = np.random.default_rng(0)
    tokens = draw.integers(0, CONFIG.vocab_size, (BATCH, LENGTH))
    position_ids = draw.integers(0, CONFIG.num_positions, (BATCH, 2, LENGTH))
    start = draw.integers(0, SLOTS - LENGTH, BATCH)
    boxed = MODEL.init(jax.random.key(0), tokens, position_ids, start)["params"]
    alone = jax.device_get(nn.unbox(boxed))
    inputs = (tokens, position_ids, start)
    hidden, cache = jax.jit(extend)(by_layer(alone), make_cache(CacheLayout()), *inputs)

    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    params = jax.device_put(alone, parameter_shardings(boxed, mesh))
    with jax.set_mesh(mesh):
        inputs = jax.device_put(inputs, batch_sharding(mesh))
        params = jax.jit(by_layer)(params)
        found = []
        for heads_of_row in (1, 2):
            groups = CONFIG.num_attention_heads // heads_of_row
            stored = jax.tree.map(lambda pages, groups=groups: in_groups(pages[0], groups), cache)
            layout = CacheLayout(SLOTS, heads_of_row)
            found.append(compare(params, layout, inputs, (hidden, stored)))
    print(json.dumps([*found, {"kernels": compare_kernels()}]))


def compare_kernels() -> float:
    """How far the logits of the kernels on eight devices are from those of plain operations."""
    config = GLMConfig(
        vocab_size=128, num_layers=2, hidden_size=256, num_attention_heads=4, max_sequence_length=32
    )
    draw = np.random.default_rng(0)
    tokens = draw.integers(0, config.vocab_size, (BATCH, 1))
    position_ids = draw.integers(0, config.num_positions, (BATCH, 2, 1))
    start = np.zeros(BATCH, np.int32)
    boxed = GLM(config).init(jax.random.key(0), tokens, position_ids, start)["params"]
    # Larger than the real initial values, so that every part has a share in the result.
    alone = jax.tree.map(lambda leaf: 3.0 * jax.device_get(leaf), nn.unbox(boxed))

    def next_logits(params: Any, kernels: DecodeKernels | None) -> Any:
        network = decoding_network(config, kernels=kernels)
        cache = empty_cache(config, BATCH, SLOTS, CacheLayout(SLOTS, 2))
        inputs = (tokens, position_ids, cache, start, memory_mask(start, 1, SLOTS))
        return network.apply({"params": params}, *inputs, method="next_logits")[0]

    program = jax.jit(next_logits, static_argnums=1)
    expected = np.asarray(program(by_layer(alone), None))
    mesh = make_mesh(MeshConfig(data=4, tensor=2))
    with jax.set_mesh(mesh):
        params = jax.jit(by_layer)(jax.device_put(alone, parameter_shardings(boxed, mesh)))
        found = np.asarray(program(params, DecodeKernels(1, interpret=True)))
    assert np.ptp(expected) > 1.0
    return float(np.abs(found - expected).max())


def compare(params: Any, layout: CacheLayout, inputs: Any, expected: Any) -> dict[str, Any]:
    """What the sharded program finds, and how it moves the cache."""
    cache = jax.jit(make_cache, static_argnums=0)(layout)
    program = jax.jit(extend, donate_argnums=1).lower(params, cache, *inputs).compile()
    result = program(params, cache, *inputs)
    pairs = zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True)
    # Only the cache has slots as the fourth of five axes: an operation that moves data between
    # devices and has them would move it.
    moves = rf"\S*\[\d+,\d+,\d+,{SLOTS},\d+\]\S* (?:all-\w+|collective-\w+)"
    return {
        "difference": max(float(np.abs(np.asarray(a) - b).max()) for a, b in pairs),
        "cache_part": result[1][0].key.addressable_shards[0].data.shape,
        "moved": re.findall(moves, program.as_text() or ""),
    }


if __name__ == "__main__":
    main()
