"""Small functions through the real TPU compiler."""

from __future__ import annotations

import pytest

pytest.importorskip("libtpu")

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from glm_jax.compile.program import DoesNotFitError, compile_program
from glm_jax.compile.topology import open_topology

ROUNDS, CHIPS, WIDTH, BATCH = 7, 4, 512, 1024


@pytest.fixture(scope="module", params=["v5e:2x2", "v5p:2x2x1"])
def mesh(request) -> Mesh:
    """Four chips in a row."""
    return Mesh(np.array(open_topology(request.param).devices), ("chips",))


def lower(function, mesh: Mesh, *shapes: tuple[int, ...]) -> jax.stages.Lowered:
    """Lowers a function of bfloat16 arrays whose first dimension is cut over the chips."""
    sharding = NamedSharding(mesh, PartitionSpec("chips"))
    arguments = [jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in shapes]
    shardings = (sharding,) * len(shapes)
    return jax.jit(function, in_shardings=shardings, out_shardings=sharding).lower(*arguments)


def test_a_loop_over_products_with_gathered_weights(mesh):
    def function(weights, x):
        def body(carry, _):
            return jnp.tanh(carry @ weights), None

        return jax.lax.scan(body, x, None, length=ROUNDS)[0]

    lowered = lower(function, mesh, (WIDTH, WIDTH), (BATCH, WIDTH))
    compiled = compile_program(lowered, [0] * CHIPS)
    costs = compiled.costs
    assert costs.flops == ROUNDS * 2 * (BATCH // CHIPS) * WIDTH * WIDTH
    assert costs.cycles["product fusion"] > 0
    assert not costs.unknown_loops
    gathered = WIDTH * WIDTH * 2
    wire = sum(times * moved.ici_bytes for moved, times in costs.collectives)
    assert wire in (gathered * 3 / 4, ROUNDS * gathered * 3 / 4)
    assert compiled.memory.arguments == (WIDTH + BATCH) * WIDTH * 2 / CHIPS
    assert compiled.compile_seconds > 0


def test_a_kernel_declares_what_it_costs(mesh):
    declared = pallas.CostEstimate(flops=1000, bytes_accessed=2000, transcendentals=0)

    def double(source, target):
        target[...] = source[...] * 2

    def function(x):
        shape = jax.ShapeDtypeStruct((BATCH // CHIPS, WIDTH), x.dtype)
        return jax.shard_map(
            pallas.pallas_call(double, out_shape=shape, cost_estimate=declared, name="double"),
            mesh=mesh,
            in_specs=PartitionSpec("chips"),
            out_specs=PartitionSpec("chips"),
            check_vma=False,
        )(x)

    (kernel,) = compile_program(lower(function, mesh, (BATCH, WIDTH)), [0] * CHIPS).costs.kernels
    assert (kernel.name, kernel.calls, kernel.flops, kernel.bytes) == ("double", 1, 1000, 2000)


def test_what_is_too_large_says_what_it_needs(mesh):
    lowered = lower(lambda x: x + 1, mesh, (2**38, 4))
    with pytest.raises(DoesNotFitError, match=r"it needs 1\.00T of memory per chip"):
        compile_program(lowered, [0] * CHIPS)


def test_the_compilation_cache_is_left_as_it_was(mesh):
    before = jax.config.jax_enable_compilation_cache
    compile_program(lower(lambda x: x + 1, mesh, (BATCH, WIDTH)), [0] * CHIPS)
    assert jax.config.jax_enable_compilation_cache == before
