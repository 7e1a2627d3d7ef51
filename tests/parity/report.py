"""Writes docs/parity.md: every recording of the original code that is checked, and how far ours is.

python -m tests.parity.report GOLDENS --out docs/parity.md
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from glm_jax.convert.load import load as load_checkpoint
from tests.parity.golden_exact import block_rows
from tests.parity.golden_forward import forward_rows
from tests.parity.golden_generation import generation_rows
from tests.parity.golden_training import training_rows
from tests.parity.rows import Row

HEADER = """# Parity with the original code

Numbers recorded from the original PyTorch code (float32 on a CPU, dropout off), compared with those
computed here in float32 on a CPU. Each difference is the largest found: absolute, unless a row
says relative, or a count of what differs. A tolerance of 0 means equal. The recorded models are
small.

This page is generated: `make parity-report`.
"""
NOTES = Path(__file__).with_name("report_notes.md")


def load(path: Path, num_attention_heads: int) -> tuple[Any, Any]:
    """A recorded model and its parameters."""
    return load_checkpoint(path, num_attention_heads=num_attention_heads)


# Titles of the report's parts, and what gives their rows.
PARTS: Mapping[str, Callable[[Path], Iterable[Row]]] = {
    "Forward passes": lambda goldens: merged(forward_rows(goldens, load)),
    "Training": training_rows,
    "Blanks": block_rows,
    "Generation": lambda goldens: generation_rows(goldens, load),
}


def merged(rows: Iterable[Row]) -> Iterator[Row]:
    """One row for all quantities of a golden that have the same tolerance: the farthest off."""
    groups: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.golden, row.tolerance), []).append(row)
    for (golden, tolerance), group in groups.items():
        quantities = ", ".join(row.quantity for row in group)
        # What isn't a number is not passed, and must not get lost in a maximum.
        worst = max(group, key=lambda row: (not row.passed, row.difference))
        yield Row(golden, quantities, tolerance, worst.difference)


def render(parts: Mapping[str, Sequence[Row]], notes: str) -> str:
    """The page as Markdown."""
    rows = [row for part in parts.values() for row in part]
    failed = sum(not row.passed for row in rows)
    verdict = f"{failed} of {len(rows)} fail" if failed else f"All {len(rows)} pass"
    lines = [HEADER, f"{verdict}.", ""]
    for title, part in parts.items():
        lines += [f"## {title}", ""]
        lines += ["| Golden | Quantity | Tolerance | Difference | |", "|---|---|--:|--:|---|"]
        lines += [line(row) for row in part]
        lines.append("")
    return "\n".join([*lines, notes])


def line(row: Row) -> str:
    """One row of a table."""
    result = "pass" if row.passed else "**FAIL**"
    values = f"{number(row.tolerance)} | {number(row.difference)} | {result}"
    return f"| `{row.golden}` | {row.quantity} | {values} |"


def number(value: float) -> str:
    """Two digits are enough to compare; whole numbers are counts."""
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.1e}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compares everything and writes the page; 1 when a row fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("goldens", type=Path, help="folder of the recorded numbers")
    parser.add_argument("--out", type=Path, required=True, help="the page to write")
    options = parser.parse_args(arguments)
    if not options.goldens.is_dir():
        parser.error(f"there are no recorded numbers at {options.goldens}: no such folder")
    parts = {title: list(rows_of(options.goldens)) for title, rows_of in PARTS.items()}
    options.out.write_text(render(parts, NOTES.read_text()))
    failed = [row for part in parts.values() for row in part if not row.passed]
    for row in failed:
        print(line(row), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
