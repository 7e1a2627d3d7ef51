"""Fixtures: a token store, and runs of seconds on it, that many tests share."""

from __future__ import annotations

import fcntl
import os
import pydoc_data.topics
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

TINY_RUN = """
model.vocab_size = 512
model.num_layers = 2
model.hidden_size = 32
model.num_attention_heads = 2
model.max_sequence_length = 32
model.embedding_dropout = 0.0
model.hidden_dropout = 0.0
model.attention_dropout = 0.0
data.store = {store!r}
data.sequence_length = 32
data.batch_size = 8
blanks.token = 0.5
blanks.sentence = 0.3
blanks.document = 0.2
blanks.task_masks = True
optimizer.learning_rate = 1e-2
optimizer.decay_steps = 40
train.run_folder = {run_folder!r}
train.num_steps = 6
train.log_every = 1
evaluation.every = 100
evaluation.num_batches = 2
evaluation.fill_examples = 1
checkpoint.every = 100
"""


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Folders that all workers share: the first that asks for one fills it, the others wait."""
    own = tmp_path_factory.getbasetemp()
    shared_folder = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def made(name: str, fill: Callable[[Path], object]) -> Path:
        folder, done = shared_folder / name, shared_folder / f"{name}.done"
        with (shared_folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that has failed
                folder.mkdir()
                fill(folder)
                done.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def tiny_store(made_once) -> Path:
    """A small token store of real prose with a tokenizer of 400 pieces."""
    return made_once("tiny_store", _write_store) / "store"


def _write_store(folder: Path) -> None:
    from glm_jax.tokenizer import train_sentencepiece
    from tests.data.store.writing import write_store

    texts = [text for _, text in sorted(pydoc_data.topics.topics.items())]
    tokenizer = train_sentencepiece(texts[:20], folder / "tokenizer", vocab_size=400)
    start, end = tokenizer.special["ENC"], tokenizer.special["eos"]
    documents = [[start, *tokenizer.encode_text(text), end] for text in texts]
    parts = {"train": documents[6:40], "validation": documents[:6]}
    write_store(folder / "store", parts, tokenizer)


@pytest.fixture(scope="session")
def write_tiny_run(tiny_store) -> Callable[[Path], Path]:
    """Writes the gin file of a run of seconds into a folder; its run folder is `run` next to it."""

    def write(folder: Path) -> Path:
        path = folder / "tiny.gin"
        run_folder = str(folder / "run")
        path.write_text(TINY_RUN.format(store=str(tiny_store), run_folder=run_folder))
        return path

    return write


@pytest.fixture
def tiny_run(write_tiny_run, tmp_path) -> Path:
    """A gin file of a run of seconds, whose run folder is `run` next to it."""
    return write_tiny_run(tmp_path)


@pytest.fixture(scope="session")
def begun_tiny_run(write_tiny_run, made_once) -> Path:
    """The run folder of a tiny run of one step; to be copied, not to be changed."""

    def fill(folder: Path) -> None:
        _run(write_tiny_run(folder), "train.num_steps=1")

    return made_once("begun_tiny_run", fill) / "run"


@pytest.fixture(scope="session")
def finished_tiny_run(write_tiny_run, made_once) -> Path:
    """The run folder of a finished tiny run; to be copied, not to be changed."""
    return made_once("finished_tiny_run", lambda folder: _run(write_tiny_run(folder))) / "run"


def _run(gin_file: Path, *bindings: str) -> None:
    """Pretrains as a configuration says; the run folder is `run` next to its file."""
    from rich.console import Console

    from glm_jax.configure import read_configuration
    from glm_jax.train.pretrain import pretrain

    assert pretrain(read_configuration([gin_file], bindings), Console(quiet=True)).finished
