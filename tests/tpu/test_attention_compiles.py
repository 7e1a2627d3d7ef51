"""The real TPU compiler takes the attention kernels on every generation, at every length."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("libtpu")

from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from glm_jax.compile.topology import open_topology
from glm_jax.model.attention.choose import attention_function
from glm_jax.model.attention.flash import prefix_flash_attention
from glm_jax.model.dropout import Dropout
from glm_jax.model.paged_attention import PrefixKeyValue
from glm_jax.model.remat import ATTENTION_CONTEXT, ATTENTION_LOGSUMEXP

SLICES = {"v4": "v4:2x2x1", "v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2"}


@pytest.fixture(autouse=True, scope="module")
def no_compilation_cache():
    """Programs kept on disk can't be read back without a TPU."""
    enabled = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_enable_compilation_cache", enabled)
    compilation_cache.reset_cache()


def compile_gradients(attention, generation: str, shape, dtype="bfloat16"):
    """The program for one chip that gives context and gradients of heads of [B, L, H, K]."""
    mesh = Mesh(np.array(open_topology(SLICES[generation]).devices[:1]), ("data",))
    sharding = NamedSharding(mesh, PartitionSpec())

    # Heads are one axis outside, as in the network: an array with a minor axis of 64 would have to
    # be laid out anew.
    flat = (*shape[:2], shape[2] * shape[3])

    def run(query, key, value, prefix_length, gradient):
        def flat_attention(*arrays):
            heads = [array.reshape(shape) for array in arrays]
            return attention(*heads, prefix_length).reshape(flat)

        context, pull_back = jax.vjp(flat_attention, query, key, value)
        return context, pull_back(gradient)

    heads = jax.ShapeDtypeStruct(flat, dtype, sharding=sharding)
    prefix_length = jax.ShapeDtypeStruct(shape[:1], jnp.int32, sharding=sharding)
    with jax.set_mesh(mesh):
        return jax.jit(run).lower(heads, heads, heads, prefix_length, heads).compile()


def num_kernels(program) -> int:
    return program.as_text().count('custom_call_target="tpu_custom_call"')


@pytest.mark.parametrize(
    ("generation", "length"),
    [("v4", 1024), ("v4", 32_768), ("v5e", 2048), ("v5p", 1024), ("v6e", 8192)],
)
def test_both_kernels_compile(generation, length):
    program = compile_gradients(prefix_flash_attention, generation, (1, length, 2, 64))
    assert num_kernels(program) == 2


def with_dropout(query, key, value, prefix_length):
    batch, length, num_heads, _ = query.shape
    dropout = Dropout(jax.random.key(0)).probabilities(0.1, batch, num_heads, length)
    return prefix_flash_attention(query, key, value, prefix_length, dropout=dropout)


@pytest.mark.parametrize(
    "generation",
    ["v5e", *(pytest.param(name, marks=pytest.mark.slow) for name in ("v4", "v5p", "v6e"))],
)
def test_dropout_is_in_the_kernels(generation):
    shape = (2, 1024, 4, 64)
    program = compile_gradients(with_dropout, generation, shape)
    assert num_kernels(program) == 2
    # Two words for each query and head, and no bits of the probabilities.
    memory = program.memory_analysis()
    assert memory is not None and memory.temp_size_in_bytes < 2 * 4 * 1024**2


@pytest.mark.slow
@pytest.mark.parametrize("generation", SLICES)
@pytest.mark.parametrize(("head_size", "dtype"), [(64, "bfloat16"), (128, "float32")])
@pytest.mark.parametrize("length", [128, 640, 1024, 2048, 4096, 8192, 32_640, 32_768])
def test_both_kernels_compile_for_all_shapes(generation, head_size, dtype, length):
    program = compile_gradients(
        prefix_flash_attention, generation, (1, length, 2, head_size), dtype
    )
    assert num_kernels(program) == 2


@pytest.mark.parametrize("generation", ["v4", "v5e"])
def test_the_queries_may_be_a_part_of_the_sequence(generation):
    def gathered(query, key, value, prefix_length):
        keys, values = (jnp.tile(array, (1, 4, 1, 1)) for array in (key, value))
        start = prefix_length[0] // 1024 * 1024  # known when it runs only
        return prefix_flash_attention(query, keys, values, prefix_length, start)

    assert num_kernels(compile_gradients(gathered, generation, (1, 1024, 2, 64))) == 2


@pytest.mark.parametrize("generation", ["v5e", "v5p"])
def test_keys_of_a_trained_prefix_come_before_those_of_the_sequence(generation):
    def with_prefix(query, key, value, prefix_length):
        trained = jnp.ones((1, 128, *key.shape[2:]), key.dtype)
        prefix = PrefixKeyValue(trained, trained)
        keys, values = prefix.before(key, value)
        return prefix_flash_attention(query, keys, values, prefix_length + 128, 128)

    assert num_kernels(compile_gradients(with_prefix, generation, (1, 512, 2, 128))) == 2


@pytest.mark.slow
def test_memory_does_not_hold_the_scores():
    shape = (4, 1024, 16, 64)
    scores = 4 * 16 * 1024**2 * 4  # float32
    temporaries = {}
    for kind in ("flash", "xla"):
        memory = compile_gradients(attention_function(kind), "v5p", shape).memory_analysis()
        assert memory is not None
        temporaries[kind] = memory.temp_size_in_bytes
    assert temporaries["flash"] < scores / 100
    assert temporaries["xla"] > scores


def test_remat_that_keeps_the_named_results_runs_the_forward_kernel_once():
    policies = jax.checkpoint_policies
    for policy, expected in [
        (policies.nothing_saveable, 3),
        (policies.save_only_these_names(ATTENTION_CONTEXT, ATTENTION_LOGSUMEXP), 2),
    ]:
        attention = jax.checkpoint(prefix_flash_attention, policy=policy)
        program = compile_gradients(attention, "v5p", (1, 256, 2, 64))
        assert num_kernels(program) == expected
