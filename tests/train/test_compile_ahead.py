"""The step that is compiled from shapes alone is the one that a run needs."""

from __future__ import annotations

import shutil

import jax
import numpy as np
import pytest
from rich.console import Console

from glm_jax.configure import read_configuration
from glm_jax.train import preflight
from glm_jax.train.preflight import prepare_run
from glm_jax.train.pretrain import pretrain
from glm_jax.train.step import settings_on_devices


@pytest.mark.slow  # every run of the other tests is compiled ahead
def test_it_gives_the_numbers_of_the_step_that_is_compiled_at_its_first_call(tiny_run, tmp_path):
    from etils import epath

    config = read_configuration([tiny_run])
    ready = prepare_run(config, epath.Path(tmp_path / "run"), None)
    assert ready.train_step is not None
    settings = settings_on_devices(ready.program.settings, ready.mesh)
    results = []
    with jax.set_mesh(ready.mesh):
        for step in (ready.train_step.result(), ready.program.train_step):
            batch = next(ready.inputs.read("train", ready.mesh))
            results.append(step(ready.program.initialize(), batch, settings))
    assert ready.initialize is not None
    states = ready.initialize.result()(), ready.program.initialize()
    for ahead, expected in zip(*map(jax.tree.leaves, [*states]), strict=True):
        np.testing.assert_array_equal(ahead, expected)
    for ahead, expected in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_array_equal(ahead, expected)


def test_a_run_that_resumes_compiles_its_step_only(begun_tiny_run, tiny_run, monkeypatch):
    from etils import epath

    shutil.copytree(begun_tiny_run, tiny_run.parent / "run")
    compiled = []
    monkeypatch.setattr(preflight, "compile_in_background", compiled.append)
    ready = prepare_run(read_configuration([tiny_run]), epath.Path(tiny_run.parent / "run"), None)
    assert ready.initialize is None and len(compiled) == 1


def test_a_run_that_is_done_compiles_nothing(begun_tiny_run, tiny_run, monkeypatch):
    shutil.copytree(begun_tiny_run, tiny_run.parent / "run")
    config = read_configuration([tiny_run], ["train.num_steps=1"])
    monkeypatch.setattr(preflight, "compile_in_background", lambda *_: pytest.fail("compiled"))
    assert pretrain(config, Console(quiet=True)).finished
