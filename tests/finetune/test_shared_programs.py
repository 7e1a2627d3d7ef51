"""Finetuning runs that differ in what a sweep varies share their compiled programs."""

from __future__ import annotations

import pytest
from rich.console import Console

from glm_jax.configure import read_configuration
from glm_jax.finetune.config import FinetuneRunConfig
from glm_jax.finetune.run import finetune
from tests.compilation_cache import cached_programs, caching_in

VARIED = (
    "optimizer.learning_rate=1e-3",
    "optimizer.weight_decay=0.0",
    "optimizer.warmup_fraction=0.0",
    "finetune.epochs=2",
    "finetune.seed=9",
)


@pytest.mark.slow
def test_a_run_with_other_settings_compiles_nothing(tiny_task, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()

    def run(name: str, *bindings: str) -> None:
        settings = [f"finetune.run_folder={tmp_path / name}", *bindings]
        config = read_configuration([tiny_task / "run.gin"], settings, FinetuneRunConfig)
        finetune(config, Console(quiet=True))

    with caching_in(cache):
        run("first")
        first = cached_programs(cache)
        assert any(name.startswith("jit_train_step") for name in first)
        run("second", *VARIED)
        assert cached_programs(cache) == first
        run("third", "optimizer.beta2=0.9")
        added = cached_programs(cache) - first
        assert added and all(name.startswith("jit_train_step") for name in added)
