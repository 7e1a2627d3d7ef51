"""A tiny network that was finetuned to write texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from glm_jax.cli.main import main
from tests.seq2seq.test_evaluate import write_pairs
from tests.serve.tiny_checkpoint import write_checkpoint

SETTINGS = """
seq2seq.name = 'customization'
seq2seq.source_length = 40
seq2seq.target_length = 16
seq2seq.label_smoothing = 0.1
generation.beams = 2
generation.batch_size = 4
generation.no_repeat_ngram = 0
finetune.epochs = 2
finetune.batch_size = 2
finetune.dropout = 0.0
finetune.log_every = 1
optimizer.learning_rate = 3e-3
optimizer.decay = 'linear'
checkpoint.keep = 1
"""


@pytest.fixture(scope="session")
def tiny_pairs(made_once) -> Path:
    """A folder with `data`, `checkpoint`, and `run.gin` that finetunes one on the other."""
    return made_once("tiny_pairs", _write_pairs)


def _write_pairs(folder: Path) -> None:
    checkpoint = write_checkpoint(folder / "checkpoint")
    data = write_pairs(folder / "data", "train")
    write_pairs(data, "val")
    paths = f"seq2seq.data = '{data}'\nfinetune.initial_weights = '{checkpoint}'\n"
    (folder / "run.gin").write_text(SETTINGS + paths)


@pytest.fixture(scope="session")
def trained_run(tiny_pairs, made_once) -> Path:
    """A run folder of that."""

    def fill(folder: Path) -> None:
        command = ["finetune", f"--gin_file={tiny_pairs / 'run.gin'}"]
        assert main([*command, f"--gin.finetune.run_folder={folder}/run"]) == 0

    return made_once("trained_run", fill) / "run"
