"""Cycles that the TPU compiler schedules for a block of weights in the MLP's kernel of decoding.

    pip install libtpu
    python benchmarks/decode_kernels.py --topology=v5e:1x1

The kernel has no estimate from the compiler; its prediction is the time that its weights take at
the memory's bandwidth. That holds if a step of it needs fewer cycles than reading the next block
takes. Both are printed for the sizes of ChatGLM-6B, one text, no TPU needed. Cycles are the
instruction words of the largest part of the program, which runs once for each block; waits inside
are not in them.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HIDDEN_SIZE, HEAD_SIZE = 4096, 128
BITS = (16, 8, 4)


def main() -> None:
    """Prints a line for each kind of number."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--topology", default="v5e:1x1", help="a slice; all its chips are used")
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--bits", type=int, choices=BITS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bits:
        compile_kernel(arguments.topology, arguments.batch_size, arguments.bits)
        return
    for bits in BITS:
        with tempfile.TemporaryDirectory() as folder:
            flags = f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true"
            printed = subprocess.run(
                [sys.executable, __file__, f"--bits={bits}", *sys.argv[1:]],
                env=os.environ | {"LIBTPU_INIT_ARGS": flags, "JAX_PLATFORMS": "cpu"},
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            (schedule,) = Path(folder).glob("*decode_mlp*[0-9]-final_bundles.txt")
            cycles = longest_part(schedule.read_text())
        print(f"{arguments.topology}, {bits:2} bits: {cycles} cycles a block, {printed.strip()}")


def longest_part(schedule: str) -> int:
    """Instruction words between two labels of a program, at most."""
    starts = [0]
    last = 0
    for line in schedule.splitlines():
        if found := re.match(r"\s*(0x[0-9a-f]+)\s+(LB|PB|PF)?", line):
            last = int(found[1], 16)
            if found[2]:
                starts.append(last)
    return max(end - start for start, end in zip(starts, [*starts[1:], last], strict=True))


def compile_kernel(topology_name: str, batch_size: int, bits: int) -> None:
    """Compiles the kernel, and prints how long reading a block of its weights takes."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding, PartitionSpec

    from glm_jax.compile.topology import open_topology
    from glm_jax.model.attention.flash_tiling import LANES
    from glm_jax.model.decode_kernels.layers import kernels_for
    from glm_jax.model.decode_kernels.matrices import Matrix
    from glm_jax.model.decode_kernels.mlp_half import MLPWeights, mlp_half
    from glm_jax.model.decode_kernels.stream import HalfBlock, Norm, Stream
    from glm_jax.model.decode_kernels.tiling import Shard

    topology = open_topology(topology_name)
    chips, kernels = len(topology.devices), kernels_for(topology.chip.device_kind)
    assert kernels is not None
    width, inner = HIDDEN_SIZE // chips, 4 * HIDDEN_SIZE // chips
    shard = Shard(HIDDEN_SIZE, width, inner, HEAD_SIZE, bits, 2, kernels.num_cores)
    mesh = jax.sharding.Mesh(topology.devices[:1], ("chip",))
    sharding = NamedSharding(mesh, PartitionSpec())

    def array(*shape: int, dtype: Any = jnp.bfloat16) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    def matrix(outputs: int, inputs: int) -> Matrix:
        if bits > 8:
            return Matrix(array(outputs, inputs))
        blocks = (outputs // LANES, inputs // shard.per_byte, LANES)
        return Matrix(array(*blocks, dtype=jnp.int8), array(outputs))

    norm = Norm(*[array(HIDDEN_SIZE, dtype=jnp.float32)] * 2)
    weights = MLPWeights(norm, matrix(inner, HIDDEN_SIZE), array(inner), matrix(HIDDEN_SIZE, inner))
    of_stream = (kernels.num_cores, batch_size, HIDDEN_SIZE)
    stream = Stream(array(*of_stream), array(*of_stream, dtype=jnp.float32), array(HIDDEN_SIZE))
    half = HalfBlock(1e-5, None, jnp.float32, interpret=False)
    with jax.set_mesh(mesh):
        program = jax.jit(lambda stream, weights: mlp_half(stream, weights, shard, half))
        program.lower(stream, weights).compile()
    assert shard.mlp_columns is not None
    block = 2 * shard.mlp_columns * HIDDEN_SIZE * bits / 8
    seconds = block / (topology.chip.hbm_bandwidth / kernels.num_cores)
    print(f"{seconds * topology.chip.clock:.0f} to read {block / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
