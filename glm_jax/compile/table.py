"""Reports of compiled steps as tables, one step or two side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from rich.table import Table

from glm_jax.compile.chips import CHIPS
from glm_jax.compile.fusions import Fusion, in_words
from glm_jax.compile.report import StepReport

GIBIBYTE = 2**30


@dataclasses.dataclass(frozen=True)
class Figure:
    """One row of a table.

    Attributes:
      label: with the unit.
      value: takes it from a report.
      text: writes it.
    """

    label: str
    value: Callable[[StepReport], float]
    text: str

    def show(self, report: StepReport) -> str:
        """The value as printed in the table."""
        return self.text.format(self.value(report))


def collective_bytes(kind: str) -> Callable[[StepReport], float]:
    """A function that takes the bytes on both networks of one kind of collective."""

    def of_report(report: StepReport) -> float:
        return sum(t.ici_bytes + t.dcn_bytes for t in report.collectives if t.kind == kind) / 1e9

    return of_report


MEMORY_FIGURES = (
    Figure("arguments, GiB", lambda r: r.memory.arguments / GIBIBYTE, "{:.2f}"),
    Figure("temporaries, GiB", lambda r: r.memory.temporaries / GIBIBYTE, "{:.4f}"),
    Figure("caches, GiB", lambda r: r.cache_bytes / GIBIBYTE, "{:.4f}"),
    Figure("other outputs, GiB", lambda r: r.memory.outputs / GIBIBYTE, "{:.2f}"),
    Figure("program, GiB", lambda r: r.memory.code / GIBIBYTE, "{:.2f}"),
    Figure("peak, GiB", lambda r: r.memory.peak / GIBIBYTE, "{:.2f}"),
    Figure("available, GiB", lambda r: r.hbm_bytes / GIBIBYTE, "{:.2f}"),
    Figure("in the host's memory, GiB", lambda r: r.memory.host / GIBIBYTE, "{:.2f}"),
)
WORK_FIGURES = (
    Figure("model, TFLOP", lambda r: r.model_flops / 1e12, "{:.2f}"),
    Figure("matrix products in HLO, TFLOP", lambda r: r.product_flops / 1e12, "{:.2f}"),
    Figure("kernels, TFLOP", lambda r: r.kernel_flops / 1e12, "{:.2f}"),
    Figure("estimated cycles, million", lambda r: sum(r.cycles.values()) / 1e6, "{:.1f}"),
)
WIRE_FIGURES = (
    Figure("ICI, GB", lambda r: r.ici_bytes / 1e9, "{:.3f}"),
    Figure("DCN, GB", lambda r: r.dcn_bytes / 1e9, "{:.3f}"),
    Figure(
        "asynchronous, GB",
        lambda r: sum(total.asynchronous_bytes for total in r.collectives) / 1e9,
        "{:.3f}",
    ),
)
TIME_FIGURES = (
    Figure("matrix products, s", lambda r: r.prediction.product_seconds, "{:.6f}"),
    Figure("between them, s", lambda r: r.prediction.other_seconds, "{:.6f}"),
    Figure("kernels, s", lambda r: r.prediction.kernel_seconds, "{:.6f}"),
    Figure("ICI, all links busy, s", lambda r: r.prediction.ici_seconds, "{:.6f}"),
    Figure("ICI, on the links used, s", lambda r: r.prediction.ici_used_seconds, "{:.6f}"),
    Figure("DCN, s", lambda r: r.prediction.dcn_seconds, "{:.6f}"),
    Figure("reading weights and caches, s", lambda r: r.reading_seconds, "{:.6f}"),
    Figure("step, overlapped, s", lambda r: r.prediction.overlapped_seconds, "{:.6f}"),
    Figure("step, serial, s", lambda r: r.prediction.serial_seconds, "{:.6f}"),
    Figure("step, serial, links used, s", lambda r: r.prediction.serial_used_seconds, "{:.6f}"),
    Figure("utilisation, overlapped", lambda r: r.prediction.overlapped_utilisation, "{:.3f}"),
    Figure("utilisation, serial", lambda r: r.prediction.serial_utilisation, "{:.3f}"),
    Figure(
        "utilisation, serial, links used", lambda r: r.prediction.serial_used_utilisation, "{:.3f}"
    ),
    Figure("compile time here, s", lambda r: r.compile_seconds, "{:.0f}"),
    Figure("compile time over all cores, s", lambda r: r.compile_cpu_seconds, "{:.0f}"),
)


def step_table(reports: Sequence[StepReport]) -> Table:
    """The figures of one step, or of several side by side with each one's ratio to the first."""
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("per chip and step", no_wrap=True)
    for number, report in enumerate(reports):
        table.add_column(report.configuration, justify="right", overflow="fold")
        if number:
            table.add_column("ratio", justify="right")
    kinds = sorted({total.kind for report in reports for total in report.collectives})
    collectives = tuple(Figure(f"{k}, GB", collective_bytes(k), "{:.3f}") for k in kinds)
    sections = (MEMORY_FIGURES, WORK_FIGURES, WIRE_FIGURES + collectives, TIME_FIGURES)
    for section in sections:
        for figure in section:
            if any(figure.value(report) for report in reports):
                _add(table, figure, reports)
        table.add_section()
    return table


def details(report: StepReport) -> list[Table]:
    """What one step is made of: collectives, cycles, kernels, operations, temporaries."""
    collectives = _table("collective", "count", "GB", "ICI GB", "DCN GB", "asynchronous GB")
    for total in report.collectives:
        sizes = (total.bytes, total.ici_bytes, total.dcn_bytes, total.asynchronous_bytes)
        collectives.add_row(total.kind, str(total.count), *(f"{size / 1e9:.3f}" for size in sizes))
    cycles = _table("instructions", "million cycles")
    for kind, count in sorted(report.cycles.items(), key=lambda item: -item[1])[:6]:
        cycles.add_row(kind, f"{count / 1e6:.2f}")
    kernels = _table("kernel", "calls", "GFLOP a call", "MB a call")
    for kernel in report.kernels:
        work = (f"{kernel.flops / 1e9:.2f}", f"{kernel.bytes / 1e6:.1f}")
        kernels.add_row(kernel.name, f"{kernel.calls:g}", *work)
    temporaries = _table("largest temporaries at the peak", "MiB", "arrays", "the largest")
    for temporary in report.temporaries:
        size = f"{temporary.bytes / 2**20:.1f}"
        temporaries.add_row(temporary.source, size, str(temporary.arrays), temporary.shape)
    tables = (collectives, cycles, kernels, _fusions(report), temporaries)
    return [table for table in tables if table.row_count]


FUSION_COLUMNS = ("calls", "ms", "reads, MiB", "writes, MiB", "least, MiB", "memory's share")


def fusion_cells(report: StepReport, fusion: Fusion) -> tuple[str, ...]:
    """What FUSION_COLUMNS name, of one call but for the time of all."""
    chip = CHIPS[report.topology.partition(":")[0]]
    return (
        f"{fusion.calls:.3g}",
        f"{1e3 * fusion.cycles / chip.clock:.3g}",
        f"{fusion.read_bytes / fusion.calls / 2**20:.1f}",
        f"{fusion.written_bytes / fusion.calls / 2**20:.1f}",
        f"{fusion.least_bytes / fusion.calls / 2**20:.1f}",
        f"{fusion.memory_share(chip.hbm_bandwidth / chip.clock):.0%}",
    )


def _fusions(report: StepReport) -> Table:
    table = _table("largest operations", *FUSION_COLUMNS)
    for fusion in report.fusions:
        product = " (product)" if fusion.is_product else ""
        table.add_row(f"{in_words(fusion.operation)}{product}", *fusion_cells(report, fusion))
    return table


def heading(report: StepReport) -> str:
    """One line: what was compiled, and for what."""
    mesh = ", ".join(f"{axis} {size}" for axis, size in report.mesh.items())
    slices = f"{report.num_slices} x " if report.num_slices > 1 else ""
    return (
        f"{report.configuration}: {report.parameters:,} parameters in {report.layers} layers on "
        f"{slices}{report.topology} ({mesh}), {report.batch_per_chip:g} x {report.sequence_length} "
        f"per chip, remat {report.remat_and_loop}; jax {report.compiler['jax']}, libtpu "
        f"{report.compiler['libtpu']}"
    )


def notes(report: StepReport) -> list[str]:
    """What the figures leave out."""
    left_out = []
    if report.unestimated:
        moved = sum(report.unestimated.values()) / 1e9
        left_out.append(
            f"{len(report.unestimated)} instructions (gathers and scatters, mostly) have no "
            f"estimate from the compiler; counted is the memory's bandwidth for {moved:.3f} GB"
        )
    if report.unknown_loops:
        names = ", ".join(report.unknown_loops)
        left_out.append(f"loops of an unknown number of rounds, counted once: {names}")
    return left_out


def _add(table: Table, figure: Figure, reports: Sequence[StepReport]) -> None:
    cells = [figure.show(reports[0])]
    first = figure.value(reports[0])
    for report in reports[1:]:
        ratio = f"{figure.value(report) / first:.2f}" if first else ""
        cells += [figure.show(report), ratio]
    table.add_row(figure.label, *cells)


def _table(first: str, *others: str) -> Table:
    table = Table(show_edge=False, pad_edge=False)
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table
