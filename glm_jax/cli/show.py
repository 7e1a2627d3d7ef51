"""What commands found, as one JSON object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from glm_jax.io.files import write_file
from glm_jax.io.paths import resolve_path


def write_json(file: str, found: Mapping[str, Any]) -> None:
    """Writes the object to a file, or prints it.

    Args:
      file: the value of --json: a path, or "-" for standard output.
      found: JSON values.
    """
    text = json.dumps(found)
    if file == "-":
        print(text)
    else:
        write_file(resolve_path(file, "--json"), f"{text}\n".encode())
