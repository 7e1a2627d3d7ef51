"""What the TPU compiler's flags do to the compiled step of GLM-10B, without a TPU.

    python benchmarks/tpu_flags.py v5e v5p
    python benchmarks/tpu_flags.py v4 --flag=xla_enable_async_all_gather=true

Compiles a step of GLM-10B cut to two layers, with no flags, with each flag alone and with all of
them together, and prints for each: temporaries, the compiler's cycles in milliseconds, bytes over
the interconnect, those of them that move while the chip computes, and compile time. What helps goes
into glm_jax/compile/tpu_flags.py with its figures. Needs libtpu.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NUM_LAYERS = 2
# What GLM-10B is recommended to run on, per generation.
FILES: dict[str, str] = {
    "v4": "glm_10b-v4-4x4x4.gin",
    "v5e": "glm_10b-v5e-16x16.gin",
    "v5p": "glm_10b-v5p-4x4x4.gin",
    "v6e": "glm_10b-v6e-16x16.gin",
}
ASYNC_FUSION = (
    "xla_tpu_enable_async_collective_fusion=true",
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather=true",
    "xla_tpu_enable_async_collective_fusion_multiple_steps=true",
)
OVERLAP = ("xla_tpu_overlap_compute_collective_tc=true", "xla_enable_async_all_gather=true")
# What others recommend for each generation.
CANDIDATES: dict[str, tuple[str, ...]] = {
    "v4": ("xla_enable_async_all_gather=true", "xla_enable_async_collective_permute=true"),
    "v5e": (
        "xla_tpu_enable_data_parallel_all_reduce_opt=true",
        "xla_tpu_data_parallel_opt_different_sized_ops=true",
        *ASYNC_FUSION,
        *OVERLAP,
    ),
    # The compiler refuses asynchronous collective fusion on v5p and v6e.
    "v5p": (
        *OVERLAP,
        "xla_tpu_megacore_fusion_allow_ags=false",
        "xla_enable_async_collective_permute=true",
        "xla_tpu_enable_ag_backward_pipelining=true",
    ),
    "v6e": ("xla_tpu_scoped_vmem_limit_kib=98304", *OVERLAP),
}


def main() -> None:
    """Compiles and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("generations", nargs="+", choices=FILES, metavar="GENERATION")
    parser.add_argument(
        "--flag", action="append", metavar="NAME=VALUE", help="instead of the recommended ones"
    )
    arguments = parser.parse_args()
    for generation in arguments.generations:
        flags = arguments.flag or CANDIDATES[generation]
        print(f"\n{FILES[generation]}, {NUM_LAYERS} layers")
        print(f"{'flags':62} {'temp MiB':>9} {'cycles ms':>9} {'wire MB':>8} {'async MB':>8}  s")
        lowered, slice_of, clock = lower(generation)
        single = [(flag, options([flag])) for flag in flags]
        everything = [("all of them", options(flags))] if len(flags) > 1 else []
        for name, chosen in [("none", {}), *single, *everything]:
            print(f"{name:62} {measure(lowered, slice_of, clock, chosen)}", flush=True)


def options(flags: list[str] | tuple[str, ...]) -> dict[str, str]:
    """Of NAME=VALUE each."""
    return {name: value for name, _, value in (flag.partition("=") for flag in flags)}


def lower(generation: str) -> tuple[Any, list[int], float]:
    """The step to compile, the slice of every device, and the chip's cycles per second."""
    from glm_jax.compile.hardware import read_name
    from glm_jax.compile.topology import open_topology

    hardware = read_name(Path(__file__).parents[1] / "configs/hardware" / FILES[generation])
    topology = open_topology(hardware.topology)

    from glm_jax.compile.step import slices_of
    from glm_jax.configure import read_configuration
    from glm_jax.parallel.mesh import make_mesh
    from glm_jax.train.compile_ahead import lower_step
    from glm_jax.train.program import program_of

    config = read_configuration([hardware.path], [f"model.num_layers={NUM_LAYERS}"])
    mesh = make_mesh(config.mesh, topology.devices)
    lowered = lower_step(
        program_of(config, mesh), config.data.batch_size, config.data.sequence_length, mesh
    )
    return lowered, list(slices_of(mesh)), topology.chip.clock


def measure(lowered: Any, slice_of: list[int], clock: float, flags: Mapping[str, str]) -> str:
    """A row of the table, or why there is none."""
    from glm_jax.compile.program import compile_program
    from glm_jax.errors import RunError

    try:
        compiled = compile_program(lowered, slice_of, flags)
    except RunError as error:
        return str(error)
    wire = sum(one.ici_bytes * times for one, times in compiled.costs.collectives)
    hidden = sum(one.ici_bytes * times for one, times in compiled.costs.collectives if one.is_async)
    milliseconds = 1e3 * sum(compiled.costs.cycles.values()) / clock
    return (
        f"{compiled.memory.temporaries / 2**20:9.0f} {milliseconds:9.1f} {wire / 1e6:8.0f} "
        f"{hidden / 1e6:8.0f} {compiled.compile_seconds:3.0f}"
    )


if __name__ == "__main__":
    main()
