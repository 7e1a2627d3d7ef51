"""Every way of finetuning reaches the best possible accuracy of a noisy task, and no other.

All start from one small network that has learnt, by full finetuning without noise, to answer by the
first letter of a text or by the second, as an instruction before it says. The noisy task gives no
instruction: full finetuning and adapters may change the network, and continuous prompts before a
frozen network have to take the place of the instruction.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from glm_jax.cli.main import main
from glm_jax.configure import read_configuration
from glm_jax.finetune.config import FinetuneRunConfig
from glm_jax.finetune.run import finetune
from tests.finetune.synthetic import BAYES_ACCURACY, write_instructions, write_noisy_task
from tests.serve.tiny_checkpoint import write_checkpoint

pytestmark = pytest.mark.slow

WAYS = {
    "full": ("optimizer.learning_rate=1e-3",),
    "lora": ("lora.rank=4", "optimizer.learning_rate=5e-3"),
    "prompts": (
        *("finetune.freeze_transformer=True", "prompt.prefix=4", "prompt.encoder=none"),
        "optimizer.learning_rate=2e-2",
    ),
}
SETTINGS = """
task.name = 'custom'
task.patterns = ('{text} is[MASK].',)
task.words = {'bad': 'n', 'good': 'y'}
task.sequence_length = 16
finetune.dropout = 0.0
finetune.batch_size = 32
finetune.evaluation_batch_size = 100
finetune.epochs = 6
finetune.evaluate_every_epochs = 2
optimizer.learning_rate = 3e-3
optimizer.weight_decay = 0.0
optimizer.decay = 'linear'
optimizer.warmup_fraction = 0.1
checkpoint.keep = 1
"""
NUM_DEV = 400
# Of chance: four standard deviations of an accuracy of 50% on the dev split.
MAX_CHANCE = 50 + 4 * 100 * (0.25 / NUM_DEV) ** 0.5


def accuracy_of(folder: Path, data: str, weights: str, *settings: str) -> float:
    """The accuracy on dev of the last epoch of a new run."""
    (folder / "run.gin").write_text(SETTINGS)
    bindings = [
        f"task.data={folder / data}",
        f"finetune.initial_weights={folder / weights}",
        f"finetune.run_folder={folder / 'run'}-{data}-{len(list(folder.iterdir()))}",
        *settings,
    ]
    config = read_configuration([folder / "run.gin"], bindings, FinetuneRunConfig)
    outcome = finetune(config, Console(quiet=True))
    assert outcome.results is not None
    metrics = Path(config.finetune.run_folder, "metrics.jsonl").read_text().splitlines()
    evaluations = [record for line in metrics if "accuracy" in (record := json.loads(line))]
    return evaluations[-1]["accuracy"]


@pytest.fixture(scope="module")
def taught(tmp_path_factory) -> Path:
    """A folder with the tasks, and the network that knows both letters below `base`."""
    folder = tmp_path_factory.mktemp("synthetic")
    write_checkpoint(folder / "random")
    write_instructions(folder / "instructions")
    write_noisy_task(folder / "noisy", num_dev=NUM_DEV)
    write_noisy_task(folder / "shuffled", num_dev=NUM_DEV, shuffled=True)
    settings = ("finetune.epochs=30", f"finetune.run_folder={folder / 'base'}")
    assert accuracy_of(folder, "instructions", "random", *settings) == 100
    return folder


def test_the_network_does_not_know_the_task_without_an_instruction(taught, capsys):
    data = ["--task=custom", f"--data={taught / 'noisy'}", "--json"]
    assert main(["evaluate", str(taught / "base"), *data]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] < BAYES_ACCURACY - 5


@pytest.mark.parametrize("way", WAYS)
def test_the_best_possible_accuracy_is_reached(taught, way):
    found = accuracy_of(taught, "noisy", "base", *WAYS[way])
    assert abs(found - BAYES_ACCURACY) <= 1


@pytest.mark.parametrize("way", WAYS)
def test_with_shuffled_labels_there_is_nothing_to_learn(taught, way):
    found = accuracy_of(taught, "shuffled", "base", *WAYS[way])
    assert 100 - MAX_CHANCE <= found <= MAX_CHANCE
