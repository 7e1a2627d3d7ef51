"""Records what the step costs now, for test_step_compiles.py to compare with.

    python -m tests.tpu.record

Writes recorded.json anew, for every slice; look at its difference before it is committed.
"""

from __future__ import annotations

import dataclasses
import json

from tests.tpu.steps import RECORDED, SLICES, compile_slice, figures


def main() -> None:
    """Compiles every slice and writes the file."""
    recorded = {}
    compiler = {}
    for topology in SLICES:
        report = compile_slice(topology)
        compiler = report.compiler
        recorded[topology] = dataclasses.asdict(figures(report))
        print(f"{topology}: {recorded[topology]}, {report.compile_seconds:.0f} s", flush=True)
    values = {"compiler": compiler, "slices": recorded}
    RECORDED.write_text(json.dumps(values, indent=2) + "\n")


if __name__ == "__main__":
    main()
