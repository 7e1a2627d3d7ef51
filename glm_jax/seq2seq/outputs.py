"""The file of a task's outputs, which grows while they are written and is continued later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from etils import epath

from glm_jax.errors import UsageError
from glm_jax.io.append import AppendedFile
from glm_jax.io.files import write_file
from glm_jax.tasks.files import read_text


@dataclass(frozen=True)
class Output:
    """What a model wrote for one example.

    Attributes:
      id: of the example.
      texts: of each blank.
      ids: of each blank, without its end.
      score: of the best hypothesis of the last blank; None where there was no search.
    """

    id: str
    texts: list[str]
    ids: list[list[int]]
    score: float | None = None


class Outputs:
    """Outputs in memory, by the ids of their examples."""

    def __init__(self) -> None:
        """Has none."""
        self.outputs: dict[str, Output] = {}

    def add(self, output: Output) -> None:
        """Takes one output."""
        self.outputs[output.id] = output


class OutputFile(Outputs):
    """JSON lines: first the settings, then one output per line in the order they are ready.

    A last line that is only half there, as a kill leaves it, is dropped.
    """

    def __init__(self, path: epath.Path, settings: Mapping[str, Any]):
        """Opens the file, or continues it.

        Args:
          path: of the file.
          settings: what decides the outputs.

        Raises:
          UsageError: the file has outputs of other settings, or is none of ours.
        """
        super().__init__()
        if path.is_file():
            self.outputs = read_outputs(path, settings)
        self._path, self._settings = path, settings
        self._file = AppendedFile(path, self._content())

    def add(self, output: Output) -> None:
        """Appends one output.

        Raises:
          OSError: it can't be written.
        """
        super().add(output)
        self._file.append(_line(asdict(output)))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def sort(self, order: list[str]) -> None:
        """Closes the file, and writes it again in the order of the examples."""
        self.close()
        self.outputs = {id: self.outputs[id] for id in order}
        write_file(self._path, self._content())

    def _content(self) -> bytes:
        lines = [_line({"settings": self._settings})]
        return b"".join([*lines, *(_line(asdict(output)) for output in self.outputs.values())])


def read_outputs(path: epath.Path, settings: Mapping[str, Any]) -> dict[str, Output]:
    """The outputs of a file that has these settings, by the id of their example.

    Raises:
      UsageError: as `OutputFile`.
    """
    lines = read_text(path).split("\n")[:-1]
    try:
        first, *others = [json.loads(line) for line in lines] or [{}]
        found = first["settings"]
        outputs = {fields["id"]: Output(**fields) for fields in others}
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no file of outputs; give another name") from error
    expected = json.loads(json.dumps(settings))
    for name in sorted({*found, *expected}):
        if found.get(name) != expected.get(name):
            raise UsageError(
                f"{path} has outputs for {name} = {found.get(name)!r}, not "
                f"{expected.get(name)!r}; remove it or give another name"
            )
    return outputs


def _line(fields: Mapping[str, Any]) -> bytes:
    return (json.dumps(fields, ensure_ascii=False) + "\n").encode()
