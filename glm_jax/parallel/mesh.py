"""The device mesh of a run."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from glm_jax.errors import UsageError
from glm_jax.validation import at_least

# From the outermost to the innermost: neighbours along the last axis are the closest devices.
MESH_AXES = ("data", "fsdp", "fsdp_minor", "context", "tensor")

# The release whose compiler these options were measured with; others may not know them.
MEASURED_JAX = (0, 10)
# Of networks whose steps take so long that the compiler should do what it can.
MIN_WIDE = 768


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Number of devices along each axis of the mesh; -1 for one axis takes the remaining devices.

    Attributes:
      data: data parallelism; each replica has a copy of the parameters and a shard of the batch.
      fsdp: data parallelism that also shards parameters and optimizer state (ZeRO-3).
      tensor: tensor parallelism, within every matrix product.
      fsdp_minor: a second axis of the same kind as `fsdp`. With two near-equal axes in place of one
        over the full torus, TPUs reduce-scatter gradients in place of all-reducing them.
      context: context parallelism; each device has a part of every sequence.
      slices: TPU slices joined by a data-center network. They are part of `data`, which counts the
        replicas of all slices, so that only sums of gradients cross the network.

    Raises:
      UsageError: a size is neither positive nor -1, or more than one is -1.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    fsdp_minor: int = 1
    context: int = 1
    slices: int = 1

    def __post_init__(self) -> None:
        at_least("mesh", self, 1, "slices")
        for axis, size in self._sizes.items():
            is_integer = isinstance(size, int) and not isinstance(size, bool)
            if not is_integer or (size < 1 and size != -1):
                raise UsageError(
                    f"mesh.{axis} is {size!r}; expected a positive integer, or -1 for the "
                    "remaining devices"
                )
        if list(self._sizes.values()).count(-1) > 1:
            raise UsageError(f"the mesh.* sizes are {self._described}; expected -1 for one only")

    @property
    def _sizes(self) -> dict[str, int]:
        return {axis: getattr(self, axis) for axis in MESH_AXES}

    @property
    def _described(self) -> str:
        plain = ("data", "fsdp", "tensor")
        return ", ".join(
            f"{axis}={size}" for axis, size in self._sizes.items() if size != 1 or axis in plain
        )

    def shape(self, num_devices: int) -> tuple[int, ...]:
        """Sizes of MESH_AXES over `num_devices`, with -1 filled in.

        Raises:
          UsageError: the sizes do not make up exactly that many devices, or `slices` does not
            divide `data`.
        """
        sizes = tuple(self._sizes.values())
        fixed = math.prod(size for size in sizes if size != -1)
        if num_devices % fixed or (-1 not in sizes and fixed != num_devices):
            raise UsageError(
                f"the mesh {self._described} needs "
                f"{'a multiple of ' if -1 in sizes else ''}{fixed} devices, "
                f"but there are {num_devices}"
            )
        filled = tuple(num_devices // fixed if size == -1 else size for size in sizes)
        if filled[0] % self.slices:
            raise UsageError(
                f"mesh.slices is {self.slices}, which does not divide mesh.data = {filled[0]}"
            )
        return filled


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh with the axes MESH_AXES over all devices of all hosts, or over `devices`.

    Use it with `jax.set_mesh(mesh)`.

    Raises:
      UsageError: the configured sizes do not make up the number of devices, or the devices are not
        in as many slices as configured.
    """
    devices = list(jax.devices() if devices is None else devices)
    shape = config.shape(len(devices))
    found = len({getattr(device, "slice_index", None) for device in devices})
    if found != config.slices:
        raise UsageError(
            f"mesh.slices is {config.slices}, but the devices are in {found} slice(s); "
            f"give --gin.mesh.slices={found}"
        )
    if found > 1:
        within = (shape[0] // config.slices, *shape[1:])
        across = (config.slices, *(1 for _ in shape[1:]))
        placed = mesh_utils.create_hybrid_device_mesh(
            within, across, devices, allow_split_physical_axes=True
        )
    elif devices[0].platform == "tpu":
        placed = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    else:
        placed = np.array(devices).reshape(shape)
    return Mesh(placed, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def platform_of(mesh: Mesh) -> str:
    """The kind of its devices, by JAX's name of it: "cpu", "gpu" or "tpu"."""
    return mesh.devices.flat[0].platform


def run_once_options(mesh: Mesh) -> dict[str, Any]:
    """Compiler options for a program that runs once, which takes longer to compile than to run.

    On CPUs, LLVM's first level of optimization, and XLA's older emitter of loops, which later
    releases lack. Results are the same.
    """
    emitters = {
        "xla_cpu_use_fusion_emitters": False,
        "xla_cpu_parallel_codegen_split_count": 1,
    }
    level = {"xla_backend_optimization_level": 1}
    return _options_on_cpus(mesh, level) | _measured_options_on_cpus(mesh, emitters)


def quick_step_options(mesh: Mesh, hidden_size: int) -> dict[str, Any]:
    """Compiler options with which a narrow network's step compiles sooner, and runs as long.

    On CPUs, LLVM's first level of optimization, in few modules: XLA's emitters have optimized loops
    before. Results are the same. Steps of wide networks become up to 1% slower with them.
    """
    if hidden_size >= MIN_WIDE:
        return {}
    options = {"xla_backend_optimization_level": 1, "xla_cpu_parallel_codegen_split_count": 4}
    return _measured_options_on_cpus(mesh, options)


def train_step_options(mesh: Mesh, compute_dtype: str, hidden_size: int) -> dict[str, Any]:
    """Compiler options for the train step of a network of this dtype and width.

    On CPUs, matrix products by Eigen where they are faster than YNNPACK's, the compiler's default:
    in float32 from the width of GLM-Base on (benchmarks/README.md).
    """
    if compute_dtype != "float32" or hidden_size < MIN_WIDE:
        return quick_step_options(mesh, hidden_size)
    options = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}
    return _measured_options_on_cpus(mesh, options)


def _measured_options_on_cpus(mesh: Mesh, options: dict[str, Any]) -> dict[str, Any]:
    """`_options_on_cpus` with the release that they were measured with, none with others."""
    return _options_on_cpus(mesh, options) if jax.__version_info__[:2] == MEASURED_JAX else {}


def _options_on_cpus(mesh: Mesh, options: dict[str, Any]) -> dict[str, Any]:
    """Those of the options that XLA_FLAGS does not set; none where devices are no CPUs."""
    if platform_of(mesh) != "cpu":
        return {}
    given = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in options.items() if name not in given}


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Checks that the mesh divides a global batch of `batch_size` examples.

    Raises:
      UsageError: data x fsdp x fsdp_minor does not divide it.
    """
    num_shards = math.prod(mesh.shape[axis] for axis in MESH_AXES[:3])
    if batch_size % num_shards:
        sizes = " x ".join(f"{axis}={mesh.shape[axis]}" for axis in MESH_AXES[:3])
        raise UsageError(
            f"the batch size {batch_size} does not divide over {num_shards} shards of the mesh "
            f"({sizes})"
        )
