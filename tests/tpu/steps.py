"""The step of GLM-10B, cut to two layers, for slices of two generations."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from glm_jax.compile.report import StepReport
from glm_jax.compile.step import compile_step
from glm_jax.compile.topology import open_topology
from glm_jax.compile.tpu_flags import compiler_options
from glm_jax.configure import read_configuration

ROOT = Path(__file__).resolve().parents[2]
RECORDED = Path(__file__).with_name("recorded.json")
NUM_LAYERS = 2
# The configuration of every slice.
SLICES: Mapping[str, Path] = {
    "v5p:4x4x4": ROOT / "configs/hardware/glm_10b_full_remat-v5p-4x4x4.gin",
    "v5e:16x16": ROOT / "configs/hardware/glm_10b-v5e-16x16.gin",
}


@dataclasses.dataclass(frozen=True)
class Figures:
    """What may not grow.

    Attributes:
      temporaries: bytes per chip.
      wire_bytes: bytes that a chip takes in over ICI.
      cycles: the compiler's estimates, all together.
      reduce_scatters: how many a step runs.
    """

    temporaries: int
    wire_bytes: float
    cycles: int
    reduce_scatters: int


def compile_slice(topology_name: str) -> StepReport:
    """Compiles the step for one of `SLICES`."""
    topology = open_topology(topology_name)
    config = read_configuration([SLICES[topology_name]], [f"model.num_layers={NUM_LAYERS}"])
    return compile_step(config, topology, "step", compiler_options(topology.chip.name))


def figures(report: StepReport) -> Figures:
    """Of one compiled step."""
    scatters = [t.count for t in report.collectives if t.kind == "reduce-scatter"]
    return Figures(
        temporaries=report.memory.temporaries,
        wire_bytes=report.ici_bytes,
        cycles=sum(report.cycles.values()),
        reduce_scatters=sum(scatters),
    )


def read_recorded() -> dict[str, Figures]:
    """The recorded figures by topology."""
    values = json.loads(RECORDED.read_text())["slices"]
    return {topology: Figures(**recorded) for topology, recorded in values.items()}
