"""Writes docs/tpu.md: what every recommended configuration needs on its slice, and how fast it is.

    python -m glm_jax.compile.page
    python -m glm_jax.compile.page --redo 'glm_10b-v5p-*'
    python -m glm_jax.compile.page --only 'glm_10b-v5p-*'

Compiles each of configs/hardware/, and of finetune/ and decode/ in there, and keeps its report in
docs/tpu/, or in decode/ in there. A report is made again if its configuration has changed since, or
on --redo. With --only, nothing else is compiled: other rows keep the reports that are there.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glm_jax.compile.any_step import compile_any_step
from glm_jax.compile.decode_step import compile_decode_step
from glm_jax.compile.hardware import HardwareConfig, hardware_configs
from glm_jax.compile.page_text import DECODING, FINETUNING, HEADER, OPERATIONS
from glm_jax.compile.program import DoesNotFitError
from glm_jax.compile.report import StepReport, read_report, report_json
from glm_jax.compile.table import FUSION_COLUMNS, fusion_cells
from glm_jax.compile.topology import Topology, open_topology
from glm_jax.compile.tpu_flags import compiler_options
from glm_jax.configure import read_any_configuration, read_decoding
from glm_jax.errors import RunError, UsageError
from glm_jax.generate.decode_config import ChatGLMDecodeConfig, DecodeConfig
from glm_jax.train.run_folder import gin_text

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

MEBIBYTE, GIBIBYTE = 2**20, 2**30
# Configurations whose largest operations the page shows.
WITH_OPERATIONS = ("glm_large-v5p-2x2x4", "glm_10b-v5p-4x4x4")


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """A part of the page.

    Attributes:
      folder: of its configurations, in configs/hardware/.
      reports: folder of its reports, in docs/tpu/.
      text: what comes before its tables.
      columns: what follows the slice in a row, by title.
      read: reads the file of a configuration.
      compile: makes the report of one: of what was read, for a topology, under a name, with flags
        of the compiler.
    """

    folder: str
    reports: str
    text: str
    columns: Mapping[str, Callable[[StepReport], str]]
    read: Callable[[Path], Any]
    compile: Callable[[Any, Topology, str, Mapping[str, str | bool | int]], StepReport]


def main(arguments: Sequence[str] | None = None) -> int:
    """Compiles what is missing and writes the page; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m glm_jax.compile.page")
    parser.add_argument("--configs", type=Path, default=Path("configs/hardware"))
    parser.add_argument("--reports", type=Path, default=Path("docs/tpu"))
    parser.add_argument("--out", type=Path, default=Path("docs/tpu.md"))
    parser.add_argument(
        "--redo", default="", metavar="PATTERN", help="of names, such as 'glm_2b-*'"
    )
    parser.add_argument(
        "--only", default="*", metavar="PATTERN", help="compile no others than these names"
    )
    parsed = parser.parse_args(arguments)
    try:
        configs = {part: hardware_configs(parsed.configs / part.folder) for part in PARTS}
        for part, every in configs.items():
            reports = parsed.reports / part.reports
            reports.mkdir(parents=True, exist_ok=True)
            for config in (one for one in every if fnmatch.fnmatch(one.path.stem, parsed.only)):
                redo = fnmatch.fnmatch(config.path.stem, parsed.redo)
                bring_up_to_date(config, part, report_path(config, reports), redo=redo)
        texts = [
            part.text + render(every, part, parsed.reports / part.reports)
            for part, every in configs.items()
        ]
        texts.append(operations(parsed.reports))
        parsed.out.write_text("".join(texts))
    except (UsageError, RunError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    print(f"wrote {parsed.out}: {sum(map(len, configs.values()))} configurations")
    return 0


def report_path(config: HardwareConfig, folder: Path) -> Path:
    """Where the report of a configuration is kept."""
    return folder / f"{config.path.stem}.json"


def bring_up_to_date(hardware: HardwareConfig, part: Part, path: Path, *, redo: bool) -> None:
    """Compiles a configuration, unless its report is there and made from the same.

    One that does not fit is recorded with the sentence that says so.
    """
    config = part.read(hardware.path)
    digest = configuration_digest(config)
    if not redo and path.exists() and json.loads(path.read_text()).get("digest") == digest:
        return
    print(f"compiling {hardware.path.stem}", flush=True)
    topology = open_topology(hardware.topology, hardware.num_slices)
    options = compiler_options(topology.chip.name)
    try:
        report = part.compile(config, topology, hardware.path.stem, options)
        values = json.loads(report_json(report))
    except DoesNotFitError as error:
        values = {"does_not_fit": str(error)}
    path.write_text(json.dumps({"digest": digest, **values}, indent=1) + "\n")


def render(configs: Iterable[HardwareConfig], part: Part, reports: Path) -> str:
    """The tables of a part as Markdown, one for each model."""
    lines = []
    model = ""
    titles = ("slice", *part.columns)
    for config in configs:
        if config.model != model:
            model = config.model
            lines += [f"\n## {model}\n", _row(titles), _row("---" for _ in titles)]
        lines.append(_row(cells(config, part, report_path(config, reports))))
    return "\n".join(lines) + "\n"


def operations(reports: Path) -> str:
    """The tables of the operations of some programs, where their reports have them."""
    lines = []
    for name in WITH_OPERATIONS:
        path = reports / f"{name}.json"
        report = read_report(path) if path.exists() else None
        if report and report.fusions:
            titles = ("operation", "result", *FUSION_COLUMNS)
            lines += [f"\n## {name}\n", _row(titles), _row("---" for _ in titles)]
            for fusion in report.fusions:
                rows = round(report.batch_per_chip * report.sequence_length)
                words = fusion.in_words(rows, report.sequence_length)
                operation = f"**{words}**" if fusion.is_product else words
                result = f"{fusion.main_result.dtype}{list(fusion.main_result.dimensions)}"
                lines.append(_row((operation, result, *fusion_cells(report, fusion))))
            lines.append(f"\n{_traffic(report)}")
    return OPERATIONS + "\n".join(lines) + "\n" if lines else ""


def _traffic(report: StepReport) -> str:
    """One sentence on what the listed operations of a program read and write."""
    passed = sum(fusion.read_bytes + fusion.written_bytes for fusion in report.fusions)
    least = sum(fusion.least_bytes for fusion in report.fusions)
    cycles = sum(fusion.cycles for fusion in report.fusions) / sum(report.cycles.values())
    return (
        f"These are {cycles:.0%} of the estimated cycles. In a step they read and write "
        f"{passed / 1e9:.0f} GB, {passed / least:.2f} times the least possible."
    )


def cells(config: HardwareConfig, part: Part, path: Path) -> list[str]:
    """One configuration's row."""
    slices = f"{config.num_slices} x " if config.num_slices > 1 else ""
    first = f"[{slices}{config.topology}](../{config.path})"
    if not path.exists():
        raise RunError(f"{config.path} has no report {path} yet, and --only leaves it out")
    sentence = json.loads(path.read_text()).get("does_not_fit")
    if sentence:
        return [first, *[""] * (len(part.columns) - 2), sentence, ""]
    report = read_report(path)
    return [first, *(text(report) for text in part.columns.values())]


def _compile_decoding(
    config: DecodeConfig | ChatGLMDecodeConfig,
    topology: Topology,
    name: str,
    options: Mapping[str, str | bool | int],
) -> StepReport:
    return compile_decode_step(config.network, config.decode, topology, name, options)


def configuration_digest(config: DataclassInstance) -> str:
    """Changes with every value of a configuration."""
    return hashlib.sha256(gin_text(config).encode()).hexdigest()[:16]


def _mesh(report: StepReport) -> str:
    axes = ", ".join(f"{axis} {size}" for axis, size in report.mesh.items() if size > 1)
    return axes or "one chip"


def _memory(report: StepReport) -> str:
    memory = report.memory
    parts = f"{memory.arguments / GIBIBYTE:.2f} + {memory.temporaries / GIBIBYTE:.2f}"
    return f"{memory.peak / GIBIBYTE:.2f} ({parts}) of {report.hbm_bytes / GIBIBYTE:.2f}"


def _seconds(report: StepReport, factor: float = 1.0) -> str:
    bounds = report.prediction
    seconds = (bounds.overlapped_seconds, bounds.serial_seconds, bounds.serial_used_seconds)
    return " / ".join(f"{factor * each:.3g}" for each in seconds)


def _utilisation(report: StepReport) -> str:
    bounds = report.prediction
    shares = (
        *(bounds.overlapped_utilisation, bounds.serial_utilisation),
        bounds.serial_used_utilisation,
    )
    return " / ".join(f"{share:.2f}" for share in shares)


def _reads(report: StepReport) -> str:
    return f"{report.read_bytes / 1e9:.2f} GB, {1e3 * report.reading_seconds:.3g} ms"


def _temporaries(report: StepReport) -> str:
    return f"{report.memory.temporaries / MEBIBYTE:.1f} / {report.cache_bytes / MEBIBYTE:,.0f}"


def _row(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"


TRAINING_COLUMNS: dict[str, Callable[[StepReport], str]] = {
    "mesh": _mesh,
    "batch per chip x length": lambda r: f"{r.batch_per_chip:g} x {r.sequence_length}",
    "remat": lambda r: r.remat_and_loop,
    "memory, GiB": _memory,
    "step, s": _seconds,
    "utilisation": _utilisation,
    "ICI / DCN, GB": lambda r: f"{r.ici_bytes / 1e9:.1f} / {r.dcn_bytes / 1e9:.1f}",
    "what limits it": lambda r: r.verdict(),
    "compiled in, s": lambda r: f"{r.compile_seconds:.0f}",
}
DECODING_COLUMNS: dict[str, Callable[[StepReport], str]] = {
    "mesh": _mesh,
    "texts x cache": lambda r: f"{r.batch_size} x {r.sequence_length}",
    "memory, GiB": _memory,
    "temporaries / caches, MiB": _temporaries,
    "reads": _reads,
    "step, ms": lambda r: _seconds(r, 1e3),
    "step / reads": lambda r: f"{r.prediction.serial_used_seconds / r.reading_seconds:.3f}",
    "tokens/s": lambda r: f"{r.batch_size / r.prediction.serial_used_seconds:,.0f}",
    "what limits it": lambda r: r.verdict(),
    "compiled in, s": lambda r: f"{r.compile_seconds:.0f}",
}
_TRAINING = (TRAINING_COLUMNS, lambda path: read_any_configuration([path]), compile_any_step)
PARTS = (
    Part("", "", HEADER, *_TRAINING),
    Part("finetune", "", FINETUNING, *_TRAINING),
    Part("decode", "decode", DECODING, DECODING_COLUMNS, read_decoding, _compile_decoding),
)


if __name__ == "__main__":
    sys.exit(main())
