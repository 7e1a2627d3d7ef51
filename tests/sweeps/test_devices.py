"""Devices and cores divided among trials, and found without opening any."""

from __future__ import annotations

import os

import pytest

from glm_jax.errors import UsageError
from glm_jax.sweeps import devices
from glm_jax.sweeps.devices import divide_devices


@pytest.fixture
def cores(monkeypatch):
    """A machine with eight cores, and no accelerators but those of the environment."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.setattr(devices, "_tpu_chips", lambda: [])


def test_gpus_are_divided(cores):
    slots = divide_devices(2, (), {"CUDA_VISIBLE_DEVICES": "0,1,4,5"})
    assert [slot.environment for slot in slots] == [
        {"CUDA_VISIBLE_DEVICES": "0,1"},
        {"CUDA_VISIBLE_DEVICES": "4,5"},
    ]
    assert [sorted(slot.cores) for slot in slots] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [slot.num_devices for slot in slots] == [2, 2]


def test_what_does_not_divide_is_left_over(cores):
    slots = divide_devices(2, (), {"CUDA_VISIBLE_DEVICES": "0,1,2"})
    assert [s.environment["CUDA_VISIBLE_DEVICES"] for s in slots] == ["0", "1"]


def test_the_devices_that_the_sweep_names_are_used(cores):
    slots = divide_devices(2, (6, 7), {"CUDA_VISIBLE_DEVICES": "0,1,2"})
    assert [s.environment["CUDA_VISIBLE_DEVICES"] for s in slots] == ["6", "7"]


def test_tpu_chips_are_divided(cores, monkeypatch):
    monkeypatch.setattr(devices, "_tpu_chips", lambda: ["0", "1", "2", "3"])
    (first, second) = divide_devices(2, (), {})
    assert first.environment == {
        "TPU_VISIBLE_CHIPS": "0,1",
        "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,2,1",
        "TPU_PROCESS_BOUNDS": "1,1,1",
    }
    assert second.environment["TPU_VISIBLE_CHIPS"] == "2,3"


def test_cpus_are_shared_where_there_are_fewer_than_trials(cores):
    environment = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "0"}
    assert [sorted(s.cores) for s in divide_devices(4, (), environment)] == [
        [0, 1],
        [2, 3],
        [4, 5],
        [6, 7],
    ]
    assert all(not slot.cores for slot in divide_devices(9, (), environment))
    assert all(not slot.cores for slot in divide_devices(1, (), environment))


def test_virtual_devices_are_counted(cores):
    flags = "--xla_force_host_platform_device_count=8 --xla_other=1"
    (slot,) = divide_devices(1, (), {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags})
    assert slot.num_devices == 8


def test_more_trials_than_devices_are_refused(cores):
    with pytest.raises(UsageError, match=r"sweep\.parallel is 3, but there are 2 devices"):
        divide_devices(3, (), {"CUDA_VISIBLE_DEVICES": "0,1"})
