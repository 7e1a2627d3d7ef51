"""A task that a tiny network learns, and its checkpoint to start from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.serve.tiny_checkpoint import write_checkpoint

SETTINGS = """
task.name = 'custom'
task.patterns = ('{text} is [MASK].',)
task.words = {'bad': 'n', 'good': 'y'}
task.multi_token = True
task.sequence_length = 32
finetune.epochs = 3
finetune.dropout = 0.1
finetune.batch_size = 8
finetune.log_every = 4
optimizer.learning_rate = 3e-3
optimizer.decay = 'linear'
optimizer.warmup_fraction = 0.1
checkpoint.keep = 1
"""


def write_examples(folder: Path) -> Path:
    """Three letters, of which the first decides the label."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for split, count in (("train", 44), ("dev", 20)):
        rows = []
        for _ in range(count):
            label = random.integers(2)
            text = ("x" if label else "o") + "".join(random.choice(list("abc"), 2))
            rows.append({"text": text, "label": "good" if label else "bad"})
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="session")
def tiny_task(tmp_path_factory) -> Path:
    """A folder with `data`, `checkpoint`, and `run.gin` that finetunes one on the other."""
    folder = tmp_path_factory.mktemp("finetune")
    data = write_examples(folder / "data")
    checkpoint = write_checkpoint(folder / "checkpoint")
    paths = f"task.data = '{data}'\nfinetune.initial_weights = '{checkpoint}'\n"
    (folder / "run.gin").write_text(SETTINGS + paths + f"finetune.run_folder = '{folder}/run'\n")
    return folder
