"""Mesh sizes, and the table from logical to mesh axes."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P

from glm_jax.configure import read_configuration
from glm_jax.errors import UsageError
from glm_jax.parallel.layout import LayoutConfig, spec_of
from glm_jax.parallel.mesh import (
    MEASURED_JAX,
    MESH_AXES,
    MeshConfig,
    check_batch_size,
    make_mesh,
    quick_step_options,
    run_once_options,
    train_step_options,
)


@given(
    sizes=st.tuples(*[st.integers(1, 8)] * len(MESH_AXES)),
    rest=st.sampled_from([None, *range(len(MESH_AXES))]),
)
def test_the_shape_makes_up_all_devices(sizes, rest):
    given_sizes = [-1 if axis == rest else size for axis, size in enumerate(sizes)]
    config = MeshConfig(**dict(zip(MESH_AXES, given_sizes, strict=True)))
    assert config.shape(math.prod(sizes)) == sizes


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
    assert dict(mesh.shape) == dict.fromkeys(MESH_AXES, 1)
    check_batch_size(7, mesh)


def test_slices_lie_along_data():
    assert MeshConfig(data=4, fsdp=2, slices=2).shape(8) == (4, 2, 1, 1, 1)
    with pytest.raises(
        UsageError, match=r"mesh\.slices is 2, which does not divide mesh\.data = 1"
    ):
        MeshConfig(data=1, fsdp=-1, slices=2).shape(8)
    with pytest.raises(UsageError, match=r"mesh\.slices is -1"):
        MeshConfig(slices=-1)


def test_slices_that_are_not_there_are_refused():
    @dataclasses.dataclass(frozen=True)
    class Device:
        id: int
        slice_index: int
        platform: str = "tpu"

    devices = [Device(number, number // 2) for number in range(8)]
    with pytest.raises(UsageError, match=r"mesh\.slices is 2, but the devices are in 4 slice"):
        make_mesh(MeshConfig(data=4, fsdp=2, slices=2), devices)
    with pytest.raises(UsageError, match=r"mesh\.slices is 2, but the devices are in 1 slice"):
        make_mesh(MeshConfig(data=2, slices=2), devices[:2])


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        ({"vocab": ("fsdp", "fdsp")}, r"layout\.vocab is .*; expected distinct axes of data"),
        ({"hidden_in": ("fsdp", "fsdp")}, r"layout\.hidden_in is .*; expected distinct"),
        ({"heads_in": ("fsdp", "tensor")}, r"layout\.heads_in is .*; expected 'tensor' first"),
        ({"mlp_out": ("tensor", "fsdp")}, r"layout\.mlp_out is .*; expected \('tensor',\)"),
        ({"hidden_in": ("tensor",)}, r"layout\.hidden_in is .*; expected no 'tensor'"),
    ],
)
def test_an_impossible_layout_is_refused_by_name(bad, complaint):
    with pytest.raises(UsageError, match=complaint):
        LayoutConfig(**bad)


def test_a_mesh_axis_that_does_not_divide_is_left_out_the_innermost_first():
    sizes = {"data": 1, "fsdp": 4, "fsdp_minor": 2, "context": 1, "tensor": 3}
    assert spec_of(("vocab", "hidden"), (24, 8), sizes) == P(("tensor", "fsdp", "fsdp_minor"), None)
    assert spec_of(("vocab", "hidden"), (12, 8), sizes) == P(("tensor", "fsdp"), None)
    assert spec_of(("vocab", "hidden"), (10, 8), sizes) == P(None, None)


LAYOUTS = Path(__file__).parents[2] / "configs/layouts"


@pytest.mark.parametrize("path", sorted(LAYOUTS.glob("*.gin")), ids=lambda path: path.stem)
def test_a_layout_file_holds_a_whole_table(path):
    config = read_configuration(["configs/runs/demo.gin", path]).layout
    bound = set(re.findall(r"^layout\.(\w+) = ", path.read_text(), re.MULTILINE))
    assert bound == {field.name for field in dataclasses.fields(config)}
    assert (config == LayoutConfig()) == (path.stem == "fsdp")


def narrow_step_options(mesh):
    return quick_step_options(mesh, 512)


@pytest.mark.parametrize("options_for", [run_once_options, narrow_step_options])
def test_quick_compilation_gives_the_same_results_unless_flags_are_given(monkeypatch, options_for):
    mesh = make_mesh(MeshConfig(), jax.devices("cpu")[:1])
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    options = options_for(mesh)
    if options_for is narrow_step_options and jax.__version_info__[:2] != MEASURED_JAX:
        assert options == {}
    else:
        assert options["xla_backend_optimization_level"] == 1
    lowered = jax.jit(lambda key: jax.random.normal(key, (257,))).lower(jax.random.key(0))
    # An option that the compiler did not know would be refused here.
    defaults: dict[str, Any] = {"xla_backend_optimization_level": 3}
    if jax.__version_info__[:2] == MEASURED_JAX:
        defaults["xla_cpu_use_fusion_emitters"] = True  # which this process has turned off
    plain, quick = lowered.compile(defaults), lowered.compile(defaults | options)
    np.testing.assert_array_equal(plain(jax.random.key(1)), quick(jax.random.key(1)))
    monkeypatch.setenv("XLA_FLAGS", " ".join(f"--{name}=0" for name in options))
    assert options_for(mesh) == {}


def test_a_wide_float32_step_on_cpus_has_other_products_unless_flags_are_given(monkeypatch):
    mesh = make_mesh(MeshConfig(), jax.devices("cpu")[:1])
    monkeypatch.setenv("XLA_FLAGS", "")
    options = train_step_options(mesh, "float32", 768)
    if jax.__version_info__[:2] != MEASURED_JAX:
        assert options == {}
        pytest.skip(f"measured with JAX {MEASURED_JAX}, this is {jax.__version__}")
    lowered = jax.jit(jnp.matmul).lower(jnp.ones((512, 512)), jnp.ones((512, 512)))
    assert "ynn_fusion" in str(lowered.compile().as_text())
    assert "ynn_fusion" not in str(lowered.compile(options).as_text())
    assert train_step_options(mesh, "float32", 512) == narrow_step_options(mesh) != {}
    assert train_step_options(mesh, "bfloat16", 768) == quick_step_options(mesh, 768) == {}
    (name,) = options
    monkeypatch.setenv("XLA_FLAGS", f"--{name}=LIBRARY_FUSION_TYPE_DOT")
    assert train_step_options(mesh, "float32", 768) == {}
