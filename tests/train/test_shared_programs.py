"""Runs that differ in what a sweep varies share their compiled programs."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from rich.console import Console

from glm_jax.configure import read_configuration
from glm_jax.parallel.mesh import make_mesh
from glm_jax.train.compile_ahead import lower_step
from glm_jax.train.pretrain import pretrain
from glm_jax.train.program import program_of
from glm_jax.train.step import step_settings
from tests.compilation_cache import cached_programs, caching_in

VARIED = (
    "optimizer.learning_rate=3e-4",
    "optimizer.weight_decay=0.0",
    "optimizer.warmup_fraction=0.0",
    "optimizer.final_fraction=0.2",
    "optimizer.decay_steps=30",
    "train.num_steps=5",
    "train.seed=7",
    "data.seed=8",
    "train.run_folder='elsewhere'",
)
# Dropout, so that the seed matters to the step.
DROPOUT = "model.hidden_dropout=0.1"
RESTART = ("optimizer.restart_step=3", "optimizer.restart_decay_steps=5")


def lowered(tiny_run, mesh: Mesh, *bindings: str) -> str:
    """The step that the compiler gets, and that its cache is looked up by."""
    config = read_configuration([tiny_run], [DROPOUT, *bindings])
    program = program_of(config, mesh)
    length = config.data.sequence_length
    return lower_step(program, config.data.batch_size, length, mesh).as_text()


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return make_mesh(read_configuration(["configs/runs/demo.gin"]).mesh)


def test_settings_that_a_sweep_varies_leave_the_step_as_it_is(write_tiny_run, tmp_path, mesh):
    tiny_run = write_tiny_run(tmp_path)
    first = lowered(tiny_run, mesh)
    if lowered(tiny_run, mesh, *VARIED) != first:
        changing = [name for name in VARIED if lowered(tiny_run, mesh, name) != first]
        pytest.fail(f"changed by {changing}")
    restarted = lowered(tiny_run, mesh, *RESTART)
    assert restarted != first
    assert lowered(tiny_run, mesh, RESTART[0], "optimizer.restart_decay_steps=9") == restarted
    assert lowered(tiny_run, mesh, "optimizer.beta2=0.9") != first


@pytest.mark.slow
def test_a_run_with_other_settings_compiles_nothing(write_tiny_run, tmp_path):
    tiny_run, cache = write_tiny_run(tmp_path), tmp_path / "cache"
    cache.mkdir()

    def run(*bindings: str) -> None:
        config = read_configuration([tiny_run], [DROPOUT, *bindings])
        pretrain(config, Console(quiet=True))

    with caching_in(cache):
        run()
        first = cached_programs(cache)
        assert any(name.startswith("jit_train_step") for name in first)
        run(*VARIED[:-1], f"train.run_folder={tmp_path / 'second'}")
        assert cached_programs(cache) == first
        run("optimizer.beta2=0.9", f"train.run_folder={tmp_path / 'third'}")
        added = cached_programs(cache) - first
        assert added and all(name.startswith("jit_train_step") for name in added)


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 - 1, 2**40 + 3, -1, -(2**62)])
def test_the_seed_of_a_step_is_that_of_its_random_numbers(seed, tiny_run):
    config = read_configuration([tiny_run])
    number = step_settings(config.optimizer, seed).seed
    found, expected = (jax.random.key_data(jax.random.key(s)) for s in (number, seed))
    np.testing.assert_array_equal(found, expected)
