"""What is known of a compiled train step: one record, as JSON and back."""

from __future__ import annotations

import collections
import dataclasses
import json
import os
from typing import Any

from glm_jax.compile.chips import CHIPS
from glm_jax.compile.costs import Costs, Kernel
from glm_jax.compile.fusions import Fusion
from glm_jax.compile.memory import MemoryUse, Temporary
from glm_jax.compile.predict import Prediction, what_limits
from glm_jax.errors import UsageError
from glm_jax.io.files import read_file

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class CollectiveTotal:
    """All collectives of one kind in a step, per chip.

    Attributes:
      kind: such as "reduce-scatter".
      count: how many are run.
      bytes: sizes of the full arrays.
      ici_bytes, dcn_bytes: what a chip takes in within its slice and from others.
      asynchronous_bytes: the part of both that can move while the chip computes.
    """

    kind: str
    count: int
    bytes: float
    ici_bytes: float
    dcn_bytes: float
    asynchronous_bytes: float


@dataclasses.dataclass(frozen=True)
class StepReport:
    """One train step, compiled for one topology. All figures are per chip and step.

    Attributes:
      configuration: name of what was compiled, such as the gin file.
      topology, num_slices, chips: what for.
      mesh: sizes of the mesh's axes.
      layers, parameters, remat: of the model.
      batch_size, sequence_length: of a step, over all chips.
      memory, hbm_bytes: what is needed, and what a program can have.
      product_flops: operations of matrix products in the program, with what remat repeats.
      kernel_flops: operations that the kernels declare.
      model_flops: analytic operations of the model, nothing repeated.
      collectives: totals by kind.
      cycles: the compiler's estimates by kind of instruction.
      unestimated: bytes of results that it gave no estimate for, by instruction.
      kernels: every Pallas kernel.
      prediction: the bounds of a step's time.
      temporaries: the source lines with most memory at the peak.
      unknown_loops: loops that were counted once, for want of a known number of rounds.
      compile_seconds, compile_cpu_seconds: on the machine that compiled it.
      compiler: versions.
      scan_layers: whether the program has a loop over the layers.
      read_bytes: of weights and caches that a step of decoding reads; 0 for other steps.
      cache_bytes: the part of them that is caches.
      fusions: the operations with most cycles; reports of before have none.
    """

    configuration: str
    topology: str
    num_slices: int
    chips: int
    mesh: dict[str, int]
    layers: int
    parameters: int
    remat: str
    batch_size: int
    sequence_length: int
    memory: MemoryUse
    hbm_bytes: int
    product_flops: float
    kernel_flops: float
    model_flops: float
    collectives: tuple[CollectiveTotal, ...]
    cycles: dict[str, int]
    unestimated: dict[str, float]
    kernels: tuple[Kernel, ...]
    prediction: Prediction
    temporaries: tuple[Temporary, ...]
    unknown_loops: tuple[str, ...]
    compile_seconds: float
    compile_cpu_seconds: float
    compiler: dict[str, str]
    scan_layers: bool = True  # reports of before have no such field, and a loop
    read_bytes: float = 0.0
    cache_bytes: float = 0.0
    fusions: tuple[Fusion, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether a chip's memory is large enough."""
        return self.memory.peak <= self.hbm_bytes

    @property
    def remat_and_loop(self) -> str:
        """The remat policy, and whether the program has no loop over the layers."""
        return self.remat if self.scan_layers else f"{self.remat}, no loop"

    @property
    def batch_per_chip(self) -> float:
        """Examples of a step per chip."""
        return self.batch_size / self.chips

    @property
    def ici_bytes(self) -> float:
        """What a chip takes in over the links of its slice."""
        return sum(total.ici_bytes for total in self.collectives)

    @property
    def dcn_bytes(self) -> float:
        """What a chip takes in from other slices."""
        return sum(total.dcn_bytes for total in self.collectives)

    @property
    def reading_seconds(self) -> float:
        """How long a step of decoding reads weights and caches, at the memory's bandwidth."""
        return self.read_bytes / CHIPS[self.topology.partition(":")[0]].hbm_bandwidth

    def verdict(self) -> str:
        """What limits the step, in one sentence."""
        if not self.fits:
            return (
                f"it does not fit: {self.memory.peak / 2**30:.2f} GiB are needed per chip, which "
                f"has {self.hbm_bytes / 2**30:.2f} GiB for programs"
            )
        return what_limits(self.prediction)


def collective_totals(costs: Costs) -> tuple[CollectiveTotal, ...]:
    """Sums by kind, the kind with most bytes on the wire first."""
    sums: dict[str, list[float]] = collections.defaultdict(lambda: [0.0] * 5)
    for moved, times in costs.collectives:
        wire = moved.ici_bytes + moved.dcn_bytes
        parts = (1, moved.bytes, moved.ici_bytes, moved.dcn_bytes, wire if moved.is_async else 0)
        sums[moved.kind] = [
            s + times * part for s, part in zip(sums[moved.kind], parts, strict=True)
        ]
    totals = [CollectiveTotal(kind, int(count), *rest) for kind, (count, *rest) in sums.items()]
    return tuple(sorted(totals, key=lambda total: -(total.ici_bytes + total.dcn_bytes)))


def report_json(report: StepReport) -> str:
    """The report as JSON text."""
    values = {"format": FORMAT, **dataclasses.asdict(report), "verdict": report.verdict()}
    return json.dumps(values, indent=1) + "\n"


def read_report(path: str | os.PathLike[str]) -> StepReport:
    """A report from the JSON that `report_json` wrote.

    Raises:
      UsageError: the file is missing, or is no such report.
    """
    try:
        values: dict[str, Any] = json.loads(read_file(path))
        if values.pop("format") != FORMAT:
            raise KeyError("format")
        for name in ("verdict", "digest"):
            values.pop(name, None)
        return StepReport(
            **{
                **values,
                "memory": MemoryUse(**values["memory"]),
                "prediction": Prediction(**values["prediction"]),
                "collectives": tuple(CollectiveTotal(**v) for v in values["collectives"]),
                "kernels": tuple(Kernel(**v) for v in values["kernels"]),
                "temporaries": tuple(Temporary(**v) for v in values["temporaries"]),
                "unknown_loops": tuple(values["unknown_loops"]),
                "fusions": tuple(Fusion(**v) for v in values.get("fusions", ())),
            }
        )
    except OSError as error:
        raise UsageError(f"the report {path} can't be read: {error.strerror}") from error
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path} is no report of format {FORMAT} from `glm-jax compile --json`"
        ) from error
