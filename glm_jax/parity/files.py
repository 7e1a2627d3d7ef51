"""The files of a comparison."""

from __future__ import annotations

import json
import os

from etils import epath

from glm_jax.errors import RunError
from glm_jax.io.files import make_folder, write_files
from glm_jax.io.paths import resolve_path
from glm_jax.parity.picture import draw_differences
from glm_jax.parity.report import ParityReport


def write_report(
    report: ParityReport, folder: str | os.PathLike[str]
) -> tuple[epath.Path, epath.Path]:
    """Writes parity.json and parity.png, each atomically; earlier ones are replaced.

    Raises:
      RunError: the folder can't be written.
    """
    folder = resolve_path(folder, "--out")
    record, plot = folder / "parity.json", folder / "parity.png"
    try:
        make_folder(folder)
        content = (json.dumps(report.as_json(), indent=1) + "\n").encode()
        write_files(folder, {record.name: content, plot.name: draw_differences(report)})
    except OSError as error:
        raise RunError(f"the report can't be written to {folder}: {error.strerror}") from error
    return record, plot
