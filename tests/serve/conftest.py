"""The model that is served in these tests."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from glm_jax.convert.load import load_glm
from glm_jax.generate.engine import Engine
from glm_jax.generate.fill import Filler
from glm_jax.tokenizer import load_tokenizer
from tests.serve.tiny_checkpoint import write_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A folder with a tiny model and its tokenizer."""
    return write_checkpoint(tmp_path_factory.mktemp("served") / "tiny")


@pytest.fixture(scope="session")
def filler(checkpoint) -> Filler:
    """The tiny model."""
    model, params = load_glm(checkpoint)
    return Filler(model, params, load_tokenizer(checkpoint))


@pytest.fixture
def slow_steps(monkeypatch) -> None:
    """One token in 50 ms, so that there is time to do something before a text is filled."""
    advance = Engine.advance

    def slowly(self: Engine, steps: int = 1, *, until_one_ends: bool = False):
        time.sleep(0.05)
        return advance(self, 1, until_one_ends=until_one_ends)

    monkeypatch.setattr(Engine, "advance", slowly)
