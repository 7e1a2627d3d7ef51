"""Position tables are extended within a run as the original extends them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest

from glm_jax.configure import read_configuration
from glm_jax.errors import UsageError
from glm_jax.finetune.config import FinetuneRunConfig
from glm_jax.finetune.positions import TABLES, extend_network
from glm_jax.model import GLM, GLMConfig
from glm_jax.parallel.mesh import MeshConfig, make_mesh
from tests.serve.tiny_checkpoint import MODEL

ROWS = MODEL["max_sequence_length"] + 1


@pytest.fixture(scope="module")
def network() -> GLMConfig:
    fields: Any = MODEL
    return GLMConfig(**fields)


@pytest.fixture(scope="module")
def params(network):
    arrays = (np.zeros((1, 4), np.int32), np.zeros((1, 2, 4), np.int32), np.ones(1, np.int32))
    return nn.unbox(GLM(network).init(jax.random.key(0), *arrays)["params"])


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(data=1), jax.devices()[:1])


def settings(tiny_task: Path, *bindings: str) -> FinetuneRunConfig:
    return read_configuration([tiny_task / "run.gin"], bindings, FinetuneRunConfig)


def test_old_rows_stay_and_others_are_drawn(tiny_task, network, params, mesh):
    config = settings(tiny_task, "task.sequence_length=640")
    extended, found = extend_network(config, network, params, mesh)
    assert extended == dataclasses.replace(network, max_sequence_length=640)
    new = {}
    for name in TABLES:
        table = np.asarray(found[name])
        assert table.shape == (641, MODEL["hidden_size"])
        np.testing.assert_array_equal(table[:ROWS], params[name])
        new[name] = table[ROWS:]
        # 576 x 32 numbers: the deviation of their deviation is 0.02 / sqrt(2 x 18,432).
        assert abs(new[name].std() - 0.02) < 5 * 0.02 / np.sqrt(2 * new[name].size)
        assert abs(new[name].mean()) < 5 * 0.02 / np.sqrt(new[name].size)
    assert not np.allclose(*new.values())
    others = {name for name in params if name not in TABLES}
    assert all(found[name] is params[name] for name in others)
    again = extend_network(config, network, params, mesh)[1]
    other_seed = settings(tiny_task, "task.sequence_length=640", "finetune.seed=1")
    other = extend_network(other_seed, network, params, mesh)[1]
    for name in TABLES:
        np.testing.assert_array_equal(again[name], found[name])
        assert not np.array_equal(other[name], found[name])


def test_rows_can_be_repeated_instead(tiny_task, network, params, mesh):
    bindings = ("task.sequence_length=100", "finetune.new_positions=repeat")
    _, found = extend_network(settings(tiny_task, *bindings), network, params, mesh)
    for name in TABLES:
        table = np.asarray(found[name])
        np.testing.assert_array_equal(table[ROWS:], table[: 101 - ROWS])


def test_tables_that_are_long_enough_stay(tiny_task, network, params, mesh):
    same = extend_network(settings(tiny_task, "task.sequence_length=64"), network, params, mesh)
    assert same[0] is network and same[1] is params


def test_networks_without_block_positions_are_refused(tiny_task, network, params, mesh):
    one_dimensional = dataclasses.replace(network, block_position_encoding=False)
    with pytest.raises(UsageError, match=r"task.sequence_length is 65, .* without block positions"):
        config = settings(tiny_task, "task.sequence_length=65")
        extend_network(config, one_dimensional, params, mesh)
