"""Devices of a TPU slice to compile for, on a machine that has none."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
import re
from typing import Any

from glm_jax.compile.chips import CHIPS, TpuChip
from glm_jax.errors import UsageError

# A side of a slice closes to a ring if its chips are a multiple of a cube of v4 or v5p, or the full
# side of a pod of v5e or v6e ("2D torus" of 256 chips in Google Cloud's pages).
CUBE_SIDE = 4
POD_SIDE = 16
INSTALL = "pip install libtpu"


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice, or several joined by the data-centre network.

    Attributes:
      name: such as "v5p:4x4x4".
      num_slices: how many of them.
      chip: what each device is.
      devices: of all slices, in JAX's order.
    """

    name: str
    num_slices: int
    chip: TpuChip
    devices: tuple[Any, ...]

    def __str__(self) -> str:
        return self.name if self.num_slices == 1 else f"{self.num_slices} x {self.name}"


def open_topology(name: str, num_slices: int = 1) -> Topology:
    """The devices of a slice, known to the real TPU compiler; nothing can run on them.

    Args:
      name: generation and chips along each side, such as "v5e:16x16" or "v5p:4x4x4".
      num_slices: slices of that shape.

    Raises:
      UsageError: an unknown generation or an impossible shape, or no TPU compiler is installed.
    """
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+){1,2})", name)
    if match is None or match[1] not in CHIPS:
        raise UsageError(
            f"the topology is {name!r}; expected GENERATION:SIDES such as v5p:4x4x4 or v5e:16x16, "
            f"with one of the generations {', '.join(CHIPS)}"
        )
    if num_slices < 1:
        raise UsageError(f"--num_slices is {num_slices}; expected at least 1")
    if importlib.util.find_spec("libtpu") is None:
        raise UsageError(
            f"compiling for {name} needs the TPU compiler, which is not installed; install it with "
            f"`{INSTALL}` (Linux on x86-64)"
        )
    chip = CHIPS[match[1]]
    sides = tuple(int(side) for side in match[2].split("x"))
    _settle_environment()

    import jax
    from jax.experimental import topologies

    options: dict[str, Any] = {}
    if num_slices > 1:
        options["num_slices"] = num_slices
    if chip.chip_config_name:
        options["chip_config_name"] = chip.chip_config_name
    ring = CUBE_SIDE if chip.ici_links == 6 else POD_SIDE
    options["wrap"] = tuple(side % ring == 0 for side in (*sides, 1)[:3])
    try:
        description = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
    except jax.errors.JaxRuntimeError as error:
        first_line = str(error).splitlines()[0]
        raise UsageError(f"the topology {name} can't be compiled for: {first_line}") from error
    devices = tuple(description.devices)
    assert len(devices) == math.prod(sides) * num_slices, (name, len(devices))
    return Topology(name, num_slices, chip, devices)


def _settle_environment() -> None:
    """Keeps the compiler from looking for the machine's own chips, and from wanting to be alone."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    # What the machine is doesn't matter here, but without any name the compiler complains.
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
