"""Recommended configurations: one gin file for each model and slice, named after both."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from glm_jax.errors import UsageError

_NAME = re.compile(
    r"(?P<model>.+)-(?P<chip>v\w+)-(?P<sides>\d+(?:x\d+)+)(?:-(?P<slices>\d+)slices)?"
)


@dataclasses.dataclass(frozen=True, order=True)
class HardwareConfig:
    """A configuration for certain hardware.

    Attributes:
      model: such as "glm_10b".
      topology: such as "v5p:4x4x4".
      num_slices: how many of them.
      path: of the gin file.
    """

    model: str
    topology: str
    num_slices: int
    path: Path

    @property
    def chips(self) -> int:
        """Number of chips in all slices."""
        number = self.num_slices
        for side in self.topology.partition(":")[2].split("x"):
            number *= int(side)
        return number


def read_name(path: Path) -> HardwareConfig:
    """What a file such as glm_10b-v5p-4x4x4.gin or glm_10b-v5e-16x16-2slices.gin is for.

    Raises:
      UsageError: the name does not say it.
    """
    match = _NAME.fullmatch(path.stem)
    if match is None:
        raise UsageError(
            f"{path} does not say what it is for; expected a name such as "
            "glm_10b-v5p-4x4x4.gin or glm_10b-v5e-16x16-2slices.gin"
        )
    topology = f"{match['chip']}:{match['sides']}"
    return HardwareConfig(match["model"], topology, int(match["slices"] or 1), path)


def hardware_configs(folder: Path) -> list[HardwareConfig]:
    """Everything that a folder recommends: by model, generation, and number of chips.

    Raises:
      UsageError: it holds no gin files, or one whose name says nothing.
    """
    configs = [read_name(path) for path in folder.glob("*.gin")]
    if not configs:
        raise UsageError(f"{folder} holds no gin files; expected one for each model and slice")
    return sorted(configs, key=lambda c: (c.model, c.topology.partition(":")[0], c.chips, c))
