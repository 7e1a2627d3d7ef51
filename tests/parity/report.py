"""Writes docs/parity.md: every recording of the original code that is checked, and how far ours is.

python -m tests.parity.report GOLDENS --out docs/parity.md
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from glm_jax.convert.load import load as load_checkpoint
from tests.parity.golden_exact import block_rows, item_rows
from tests.parity.golden_forward import forward_rows
from tests.parity.golden_generation import generation_rows
from tests.parity.golden_ranks import rank_rows
from tests.parity.golden_statistics import statistics_rows
from tests.parity.golden_tokenizers import tokenizer_rows
from tests.parity.golden_training import training_rows
from tests.parity.rows import Row, folders

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
    "Model-parallel ranks": rank_rows,
    "Training": training_rows,
    "Blanks": lambda goldens: itertools.chain(
        block_rows(goldens), item_rows(goldens), statistics_rows(goldens)
    ),
    "Tokenizers": lambda goldens: tokenizer_rows(goldens, goldens.parent / "vocabs"),
    "Generation": lambda goldens: generation_rows(goldens, load),
}
# Folders of recordings, each with its part. What is in others is not compared yet.
FOLDERS: Mapping[str, str] = {
    "a_forward": "Forward passes",
    "b_model_parallel": "Model-parallel ranks",
    "c_training": "Training",
    "d_blocks": "Blanks",
    "e_tokenizers": "Tokenizers",
    "g_generation": "Generation",
}


def missing_rows(goldens: Path, rows: Iterable[Row]) -> Iterator[tuple[str, Row]]:
    """A failing row for every folder of recordings that gave none, with the title of its part."""
    found = {row.golden for row in rows}
    for name, title in FOLDERS.items():
        inner = goldens / name if name in ("a_forward", "c_training") else None
        for folder in [goldens / name] if inner is None else folders(inner):
            golden = str(folder.relative_to(goldens))
            if not any(f"{other}/".startswith(f"{golden}/") for other in found):
                yield title, Row(golden, "nothing was recorded", 0.0, float("inf"))


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
    every = [row for part in parts.values() for row in part]
    for title, row in missing_rows(options.goldens, every):
        parts.setdefault(title, []).append(row)
    options.out.write_text(render(parts, NOTES.read_text()))
    failed = [row for part in parts.values() for row in part if not row.passed]
    for row in failed:
        print(line(row), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
