"""The device mesh of a run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh

from glm_jax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How many devices lie along each axis of the mesh; one of them may be -1, "the rest".

    Attributes:
      data: copies of the parameters, each with its part of the batch.
      fsdp: parts of the batch that also share one copy of the parameters between them.
      tensor: parts of every matrix product.

    Raises:
      UsageError: a size is neither positive nor -1, or more than one is -1.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self) -> None:
        for name, size in dataclasses.asdict(self).items():
            if not isinstance(size, int) or isinstance(size, bool) or (size < 1 and size != -1):
                raise UsageError(
                    f"mesh.{name} is {size!r}, but must be a positive whole number, "
                    "or -1 for the rest of the devices"
                )
        if list(dataclasses.astuple(self)).count(-1) > 1:
            raise UsageError(
                f"only one of mesh.data, mesh.fsdp and mesh.tensor can be -1, but they are "
                f"{self.data}, {self.fsdp} and {self.tensor}"
            )

    def shape(self, num_devices: int) -> tuple[int, int, int]:
        """Sizes of (data, fsdp, tensor) over `num_devices`, with -1 filled in.

        Raises:
          UsageError: the sizes do not make up exactly that many devices.
        """
        sizes = dataclasses.astuple(self)
        fixed = math.prod(size for size in sizes if size != -1)
        if num_devices % fixed or (-1 not in sizes and fixed != num_devices):
            raise UsageError(
                f"the mesh data={self.data}, fsdp={self.fsdp}, tensor={self.tensor} needs "
                f"{'a multiple of ' if -1 in sizes else ''}{fixed} devices, "
                f"but there are {num_devices}"
            )
        data, fsdp, tensor = (num_devices // fixed if size == -1 else size for size in sizes)
        return data, fsdp, tensor


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh with axes ("data", "fsdp", "tensor") over all devices of all hosts, or over `devices`.

    Neighbours along `tensor` are the closest devices. Use it with `jax.set_mesh(mesh)`.

    Raises:
      UsageError: the configured sizes do not make up the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh(
        config.shape(len(devices)),
        ("data", "fsdp", "tensor"),
        axis_types=(AxisType.Auto,) * 3,
        devices=devices,
    )


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Makes sure that a batch of `batch_size` examples, over all hosts, can be cut over the mesh.

    Raises:
      UsageError: data x fsdp does not divide it.
    """
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % parts:
        raise UsageError(
            f"the batch size {batch_size} does not divide over {parts} parts of the mesh "
            f"(data={mesh.shape['data']} x fsdp={mesh.shape['fsdp']})"
        )
