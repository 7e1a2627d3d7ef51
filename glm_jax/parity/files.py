"""The files of a comparison."""

from __future__ import annotations

import json
import os
from pathlib import Path

from glm_jax.errors import RunError
from glm_jax.parity.picture import draw_differences
from glm_jax.parity.report import ParityReport


def write_report(report: ParityReport, folder: Path) -> tuple[Path, Path]:
    """Writes parity.json and parity.png, each atomically; earlier ones are replaced.

    Raises:
      RunError: the folder can't be written.
    """
    record, plot = folder / "parity.json", folder / "parity.png"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = record.with_suffix(".partial.json")
        partial.write_text(json.dumps(report.as_json(), indent=1) + "\n")
        os.replace(partial, record)
        draw_differences(report, plot)
    except OSError as error:
        raise RunError(f"the report can't be written to {folder}: {error}") from error
    return record, plot
