"""Mesh sizes, and the table from logical to mesh axes."""

from __future__ import annotations

import math

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_jax.errors import UsageError
from glm_jax.parallel.mesh import MeshConfig, check_batch_size, make_mesh
from glm_jax.parallel.rules import LOGICAL_AXIS_RULES


@given(
    sizes=st.tuples(*[st.integers(1, 8)] * 3),
    rest=st.sampled_from([None, 0, 1, 2]),
)
def test_the_shape_makes_up_all_devices(sizes, rest):
    given_sizes = [-1 if axis == rest else size for axis, size in enumerate(sizes)]
    assert MeshConfig(*given_sizes).shape(math.prod(sizes)) == sizes


@pytest.mark.parametrize(
    ("config", "devices", "numbers"),
    [
        (MeshConfig(data=-1, tensor=3), 8, ("3", "8")),
        (MeshConfig(data=2, fsdp=2), 8, ("4", "8")),
        (MeshConfig(data=16), 8, ("16", "8")),
    ],
)
def test_a_mesh_that_does_not_divide_the_devices_is_refused(config, devices, numbers):
    with pytest.raises(UsageError) as error:
        config.shape(devices)
    assert all(number in str(error.value) for number in numbers)


@pytest.mark.parametrize("sizes", [(0, 1, 1), (-2, 1, 1), (-1, -1, 1), (1, True, 1), (1, 1, 2.0)])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(UsageError, match=r"mesh\."):
        MeshConfig(*sizes)


def test_a_mesh_over_one_device_takes_any_batch():
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    assert dict(mesh.shape) == {"data": 1, "fsdp": 1, "tensor": 1}
    check_batch_size(7, mesh)


def test_the_table_names_every_logical_axis_once():
    names = [name for name, _ in LOGICAL_AXIS_RULES]
    assert len(names) == len(set(names))
