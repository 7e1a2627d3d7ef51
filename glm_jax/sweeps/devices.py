"""The devices of this machine, divided among the trials that run at a time.

The driver opens no device: a GPU or TPU belongs to the process that opens it.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from glm_jax.errors import UsageError

NVIDIA_GPUS = Path("/proc/driver/nvidia/gpus")
DEV = Path("/dev")
# How the TPU runtime is given some of a host's chips: the shape of these.
TPU_BOUNDS = {1: "1,1,1", 2: "1,2,1", 4: "2,2,1", 8: "2,4,1"}


@dataclasses.dataclass(frozen=True)
class Slot:
    """What one trial at a time may use.

    Attributes:
      environment: variables that give it its accelerators.
      cores: CPU cores that it runs on; empty for all.
      num_devices: devices that JAX finds there.
    """

    environment: Mapping[str, str]
    cores: frozenset[int]
    num_devices: int


def divide_devices(
    num_slots: int, devices: Sequence[int], environment: Mapping[str, str]
) -> tuple[Slot, ...]:
    """Equal parts of this machine.

    Args:
      num_slots: how many.
      devices: numbers of the GPUs or TPU chips to divide; all there are, if empty.
      environment: of this process.

    Raises:
      UsageError: there are fewer devices than parts.
    """
    platform, found = accelerators(environment)
    cores = _divide_cores(num_slots)
    if platform == "cpu":
        if devices:
            raise UsageError(f"sweep.devices is {tuple(devices)}, but this machine has only CPUs")
        return tuple(Slot({}, part, _virtual_devices(environment)) for part in cores)
    names = [str(device) for device in devices] or found
    size = len(names) // num_slots
    if not size:
        raise UsageError(
            f"sweep.parallel is {num_slots}, but there are {len(names)} devices to divide"
        )
    parts = [names[slot * size : (slot + 1) * size] for slot in range(num_slots)]
    return tuple(
        Slot(_accelerator_variables(platform, part), of_slot, size)
        for part, of_slot in zip(parts, cores, strict=True)
    )


def accelerators(environment: Mapping[str, str]) -> tuple[str, list[str]]:
    """The platform that JAX will choose, "gpu", "tpu" or "cpu", and its devices' names."""
    wanted = environment.get("JAX_PLATFORMS", "")
    if wanted.startswith("cpu"):
        return "cpu", []
    tpus = environment.get("TPU_VISIBLE_CHIPS") or ",".join(_tpu_chips())
    if tpus and not wanted.startswith(("cuda", "gpu")):
        return "tpu", tpus.split(",")
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        gpus = [name.strip() for name in visible.split(",") if name.strip()]
    else:
        count = len(list(NVIDIA_GPUS.iterdir())) if NVIDIA_GPUS.is_dir() else 0
        gpus = [str(number) for number in range(count)]
    return ("gpu", gpus) if gpus else ("cpu", [])


def _tpu_chips() -> list[str]:
    """Numbers of the TPU chips whose devices this machine shows."""
    numbers = [re.fullmatch(r"accel(\d+)", path.name) for path in DEV.glob("accel*")]
    return sorted(match[1] for match in numbers if match)


def _accelerator_variables(platform: str, names: list[str]) -> dict[str, str]:
    """Variables that show a process some of the accelerators.

    Raises:
      UsageError: a TPU host can't be divided like that.
    """
    joined = ",".join(names)
    if platform == "gpu":
        return {"CUDA_VISIBLE_DEVICES": joined}
    if len(names) not in TPU_BOUNDS:
        raise UsageError(
            f"{len(names)} TPU chips for each trial make no slice; expected 1, 2, 4 or 8"
        )
    return {
        "TPU_VISIBLE_CHIPS": joined,
        "TPU_CHIPS_PER_PROCESS_BOUNDS": TPU_BOUNDS[len(names)],
        "TPU_PROCESS_BOUNDS": "1,1,1",
    }


def _divide_cores(num_slots: int) -> list[frozenset[int]]:
    """CPU cores for each slot: equal parts; all, where there are fewer cores than slots."""
    if not hasattr(os, "sched_getaffinity"):
        return [frozenset()] * num_slots
    cores = sorted(os.sched_getaffinity(0))
    size = len(cores) // num_slots
    if num_slots == 1 or not size:
        return [frozenset()] * num_slots
    return [frozenset(cores[slot * size : (slot + 1) * size]) for slot in range(num_slots)]


def _virtual_devices(environment: Mapping[str, str]) -> int:
    """How many devices XLA makes of a CPU."""
    flags = environment.get("XLA_FLAGS", "")
    found = re.findall(r"--xla_force_host_platform_device_count=(\d+)", flags)
    return int(found[-1]) if found else 1
