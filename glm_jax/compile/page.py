"""Writes docs/tpu.md: what every recommended configuration needs on its slice, and how fast it is.

    python -m glm_jax.compile.page
    python -m glm_jax.compile.page --redo 'glm_10b-v5p-*'
    python -m glm_jax.compile.page --only 'glm_10b-v5p-*'

Compiles each of configs/hardware/, and of configs/hardware/finetune/, and keeps its report in
docs/tpu/. A report is made again if its configuration has changed since, or on --redo. With --only,
nothing else is compiled: other rows keep the reports that are there.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from glm_jax.compile.any_step import compile_any_step
from glm_jax.compile.hardware import HardwareConfig, hardware_configs
from glm_jax.compile.program import DoesNotFitError
from glm_jax.compile.report import StepReport, read_report, report_json
from glm_jax.compile.topology import open_topology
from glm_jax.compile.tpu_flags import compiler_options
from glm_jax.configure import read_any_configuration
from glm_jax.errors import RunError, UsageError
from glm_jax.finetune.config import FinetuneRunConfig
from glm_jax.seq2seq.config import Seq2SeqRunConfig
from glm_jax.train.config import RunConfig
from glm_jax.train.run_folder import gin_text

GIBIBYTE = 2**30
HEADER = """# GLM on TPU slices

The train step of every published model, compiled by the real TPU compiler for slices of four
generations of chips, ahead of time and without the hardware. Memory and transfers are those of the
compiled program; times are computed from the compiler's estimates. Each row names its configuration
in `configs/hardware/`; the full report is the file of the same name in `docs/tpu/`. Programs were
compiled on two cores, partly shared with other work.

- **Memory** is the peak per chip (arguments and temporaries in brackets) and the compiler's limit
  for a program.
- **Remat** says what the backward pass keeps, and *no loop* that the program has all layers one
  after another (`model.scan_layers = False`). Pretraining rows without *no loop* were compiled
  before dropout and LayerNorm became cheaper: their steps are slower than today's.
- **Step** and **utilisation** are three bounds. The first hides everything behind the longest of
  computing, the links within a slice (ICI) and the network between slices (DCN). The second hides
  nothing. The third hides nothing either, and counts only the links that the compiler's algorithm
  for each collective keeps busy: a ring around one dimension of the torus uses two of a chip's four
  or six. Utilisation is the model's own operations (nothing that remat repeats) as a share of the
  chip's bfloat16 peak.
- Computing is the sum of the compiler's estimated cycles, times the rounds of each loop, at the
  chip's clock. Attention kernels count with the operations that they declare, at the part of the
  peak that their heads can fill. What the compiler has no estimate for (gathers and scatters) is
  taken to move its result at the memory's bandwidth.
- **Transfers** are the bytes that a chip takes in per step over ICI and DCN.

To inspect one row, or a change to it:

```bash
glm-jax compile --gin_file=configs/hardware/glm_10b-v5p-4x4x4.gin --topology=v5p:4x4x4
```

This page is generated: `make tpu-report`.
"""
FINETUNING = """
# Finetuning

The step of `glm-jax finetune`, with the recipes of the paper, on the smallest slice of each
generation that it fits. Rows have full length; a row of ReCoRD is a text of 512 tokens with ten
answers of 8 tokens behind it, all of an example (*batch per chip x length*). Training all weights
of GLM-10B needs 16 bytes for each of its 9.89 billion parameters, with gradients and optimizer
state: 19.8 GB a chip on 8 chips of v5e and 39.6 GB on 4 of v6e, more than they have.
"""
COLUMNS = (
    "slice",
    "mesh",
    "batch per chip x length",
    "remat",
    "memory, GiB",
    "step, s",
    "utilisation",
    "ICI / DCN, GB",
    "what limits it",
    "compiled in, s",
)


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
        pretraining = hardware_configs(parsed.configs)
        finetuning = hardware_configs(parsed.configs / "finetune")
        parsed.reports.mkdir(parents=True, exist_ok=True)
        every = (*pretraining, *finetuning)
        for config in (one for one in every if fnmatch.fnmatch(one.path.stem, parsed.only)):
            redo = fnmatch.fnmatch(config.path.stem, parsed.redo)
            bring_up_to_date(config, report_path(config, parsed.reports), redo=redo)
        tables = (render(configs, parsed.reports) for configs in (pretraining, finetuning))
        parsed.out.write_text(HEADER + "\n" + FINETUNING.join(tables))
    except (UsageError, RunError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    print(f"wrote {parsed.out}: {len(pretraining) + len(finetuning)} configurations")
    return 0


def report_path(config: HardwareConfig, folder: Path) -> Path:
    """Where the report of a configuration is kept."""
    return folder / f"{config.path.stem}.json"


def bring_up_to_date(hardware: HardwareConfig, path: Path, *, redo: bool) -> None:
    """Compiles a configuration, unless its report is there and made from the same.

    One that does not fit is recorded with the sentence that says so.
    """
    config = read_any_configuration([hardware.path])
    digest = configuration_digest(config)
    if not redo and path.exists() and json.loads(path.read_text()).get("digest") == digest:
        return
    print(f"compiling {hardware.path.stem}", flush=True)
    topology = open_topology(hardware.topology, hardware.num_slices)
    options = compiler_options(topology.chip.name)
    try:
        report = compile_any_step(config, topology, hardware.path.stem, options)
        values = json.loads(report_json(report))
    except DoesNotFitError as error:
        values = {"does_not_fit": str(error)}
    path.write_text(json.dumps({"digest": digest, **values}, indent=1) + "\n")


def configuration_digest(config: RunConfig | FinetuneRunConfig | Seq2SeqRunConfig) -> str:
    """Changes with every value of the configuration."""
    return hashlib.sha256(gin_text(config).encode()).hexdigest()[:16]


def render(configs: Iterable[HardwareConfig], reports: Path) -> str:
    """A part of the page as Markdown, one table for each model."""
    lines = []
    model = ""
    for config in configs:
        if config.model != model:
            model = config.model
            lines += [f"\n## {model}\n", _row(COLUMNS), _row("---" for _ in COLUMNS)]
        lines.append(_row(cells(config, report_path(config, reports))))
    return "\n".join(lines) + "\n"


def cells(config: HardwareConfig, path: Path) -> list[str]:
    """One configuration's row."""
    slices = f"{config.num_slices} x " if config.num_slices > 1 else ""
    first = f"[{slices}{config.topology}](../{config.path})"
    sentence = json.loads(path.read_text()).get("does_not_fit")
    if sentence:
        return [first, *[""] * (len(COLUMNS) - 3), sentence, ""]
    return [first, *_figures(read_report(path))]


def _figures(report: StepReport) -> list[str]:
    memory, prediction = report.memory, report.prediction
    axes = ", ".join(f"{axis} {size}" for axis, size in report.mesh.items() if size > 1)
    parts = f"{memory.arguments / GIBIBYTE:.2f} + {memory.temporaries / GIBIBYTE:.2f}"
    return [
        axes or "one chip",
        f"{report.batch_per_chip:g} x {report.sequence_length}",
        report.remat_and_loop,
        f"{memory.peak / GIBIBYTE:.2f} ({parts}) of {report.hbm_bytes / GIBIBYTE:.2f}",
        f"{prediction.overlapped_seconds:.3g} / {prediction.serial_seconds:.3g} / "
        f"{prediction.serial_used_seconds:.3g}",
        f"{prediction.overlapped_utilisation:.2f} / {prediction.serial_utilisation:.2f} / "
        f"{prediction.serial_used_utilisation:.2f}",
        f"{report.ici_bytes / 1e9:.1f} / {report.dcn_bytes / 1e9:.1f}",
        report.verdict(),
        f"{report.compile_seconds:.0f}",
    ]


def _row(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"


if __name__ == "__main__":
    sys.exit(main())
