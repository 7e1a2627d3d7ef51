"""The step of GLM-10B, cut to two layers, for slices of two generations."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from glm_jax.compile.report import StepReport
from glm_jax.compile.step import compile_step
from glm_jax.compile.topology import open_topology
from glm_jax.configure import read_configuration
from glm_jax.parallel.flags import compiler_options

ROOT = Path(__file__).resolve().parents[2]
RECORDED = Path(__file__).with_name("recorded.json")
GIN_FILE = ROOT / "configs/runs/glm_10b.gin"
NUM_LAYERS = 2
SEQUENCE_LENGTH = 1024
BATCH_PER_CHIP = 4
# Mesh of every slice: (data, fsdp).
SLICES: Mapping[str, tuple[int, int]] = {"v5p:4x4x4": (4, 16), "v5e:16x16": (16, 16)}


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
    data, fsdp = SLICES[topology_name]
    bindings = [
        f"model.num_layers={NUM_LAYERS}",
        *(f"model.{place}_dropout=0.0" for place in ("embedding", "hidden", "attention")),
        f"mesh.data={data}",
        f"mesh.fsdp={fsdp}",
        f"data.sequence_length={SEQUENCE_LENGTH}",
        f"data.batch_size={BATCH_PER_CHIP * len(topology.devices)}",
    ]
    config = read_configuration([GIN_FILE], bindings)
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
