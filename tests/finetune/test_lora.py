"""Low-rank adapters: what is trained and saved, the merged network, and its base weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from rich.console import Console

import glm_jax
from glm_jax.cli.main import main
from glm_jax.cluster.preemption import StopRequest
from glm_jax.configure import read_configuration
from glm_jax.convert.layouts.native_reader import open_arrays
from glm_jax.finetune.config import FinetuneRunConfig
from glm_jax.finetune.lora import linear_kind
from glm_jax.finetune.lora_config import TARGETS, LoraConfig
from glm_jax.finetune.run import finetune
from glm_jax.finetune.trainable import join, leaf_paths
from glm_jax.model import GLM, GLMConfig
from glm_jax.train.metrics import read_metrics
from tests.finetune.conftest import SETTINGS, write_examples
from tests.serve.tiny_checkpoint import MODEL

ADAPTERS = ("lora.rank=4", "lora.alpha=8", "optimizer.learning_rate=2e-2")
SAME_LOGITS = 1e-5


def run(task: Path, folder: Path, *bindings: str):
    settings = [f"finetune.run_folder={folder}", *bindings]
    config = read_configuration([task / "run.gin"], settings, FinetuneRunConfig)
    return finetune(config, Console(quiet=True))


def saved_arrays(folder: Path, step: int) -> dict[str, np.ndarray]:
    arrays = open_arrays(epath.Path(folder) / "checkpoints" / str(step))
    return {path: stored.array.read().result() for path, stored in arrays.items()}


@pytest.fixture(scope="module")
def finished(tiny_task, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora") / "run"
    return folder, run(tiny_task, folder, *ADAPTERS, "lora.dropout=0.1")


def test_adapters_learn_and_are_all_that_is_saved(finished):
    folder, outcome = finished
    assert outcome.results["accuracy"] > 80
    saved = saved_arrays(folder, outcome.steps)
    assert sorted(saved) == sorted(
        f"layers/{target}/{name}" for target in TARGETS for name in ("lora_a", "lora_b")
    )
    assert saved["layers/attention/query_key_value/lora_a"].shape == (2, 32, 4)
    assert saved["layers/attention/query_key_value/lora_b"].shape == (2, 4, 3, 32)
    assert all(np.abs(array).max() > 1e-3 for array in saved.values())
    description = json.loads((folder / f"checkpoints/{outcome.steps}/state/_METADATA").read_text())
    saved_state = {
        "/".join(key["key"] for key in leaf["key_metadata"])
        for leaf in description["tree_metadata"].values()
    }
    moments = {path for path in saved_state if path.startswith("optimizer_state")}
    assert moments and not any(path.endswith(("kernel", "embedding")) for path in moments)


def test_merged_and_unmerged_logits_agree(finished, tiny_task):
    folder, outcome = finished
    network, merged = glm_jax.load(folder)
    model: Any = network
    _, base = glm_jax.load(tiny_task / "checkpoint")
    adapters = {}
    for path, array in saved_arrays(folder, outcome.steps).items():
        *folders, name = path.split("/")
        node = adapters
        for part in folders:
            node = node.setdefault(part, {})
        node[name] = array
    lora = LoraConfig(rank=4, alpha=8)
    unmerged: Any = GLM(model.config, linear=linear_kind(lora))
    random = np.random.default_rng(0)
    tokens = jnp.asarray(random.integers(0, 256, (3, 24)), jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(24), (3, 2, 24))
    inputs = (tokens, positions, jnp.asarray([5, 10, 20]))
    expected = unmerged.apply({"params": join(base, adapters)}, *inputs)
    np.testing.assert_allclose(model.apply({"params": merged}, *inputs), expected, atol=SAME_LOGITS)
    untrained = model.apply({"params": base}, *inputs)
    assert np.abs(np.asarray(untrained) - np.asarray(expected)).max() > 0.1


@pytest.mark.slow
def test_a_stopped_run_resumes_bit_for_bit(finished, tiny_task, tmp_path, monkeypatch):
    folder, outcome = finished
    settings = (*ADAPTERS, "lora.dropout=0.1")
    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "asked", lambda self, at: at == 8)
        stopped = run(tiny_task, tmp_path / "run", *settings)
    assert stopped.results is None and stopped.steps == 8
    resumed = run(tiny_task, tmp_path / "run", *settings)
    assert resumed.results == outcome.results
    saved = saved_arrays(tmp_path / "run", outcome.steps)
    for path, array in saved_arrays(folder, outcome.steps).items():
        np.testing.assert_array_equal(saved[path], array)


def test_convert_merges_and_every_command_opens_the_run(finished, tiny_task, tmp_path, capsys):
    folder, outcome = finished
    assert main(["convert", str(folder), str(tmp_path / "merged")]) == 0
    assert main(["convert", str(folder), str(tmp_path / "original"), "--to", "original"]) == 0
    expected = glm_jax.load(folder)[1]
    for name in ("merged", "original"):
        found = glm_jax.load(tmp_path / name, num_attention_heads=2)[1]
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    capsys.readouterr()
    data = ["--task=custom", f"--data={tiny_task / 'data'}", "--json"]
    assert main(["evaluate", str(folder), *data]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == outcome.results["accuracy"]
    assert main(["fill", str(folder), "xab is [MASK]."]) == 0
    assert capsys.readouterr().out


def test_without_an_epoch_the_network_itself_is_evaluated(tiny_task, tmp_path, capsys):
    outcome = run(tiny_task, tmp_path / "run", *ADAPTERS, "finetune.epochs=0")
    network = run(tiny_task, tmp_path / "network", "finetune.epochs=0")
    assert outcome.results == network.results


@pytest.mark.parametrize("kind", ["original", pytest.param("huggingface", marks=pytest.mark.slow)])
def test_adapters_of_every_kind_of_checkpoint(finished, tiny_task, tmp_path, kind):
    base = tmp_path / "base"
    assert main(["convert", str(tiny_task / "checkpoint"), str(base), "--to", kind]) == 0
    settings = (
        f"finetune.initial_weights={base}",
        f"tokenizer.kind={tiny_task / 'checkpoint/tokenizer'}",
        "finetune.num_attention_heads=2",
        "lora.dropout=0.1",
    )
    outcome = run(tiny_task, tmp_path / "run", *ADAPTERS, *settings)
    folder, expected = finished
    assert outcome.results == expected.results
    jax.tree.map(
        np.testing.assert_array_equal,
        glm_jax.load(tmp_path / "run")[1],
        glm_jax.load(folder)[1],
    )
    losses = [
        [r["loss"] for r in read_metrics(path / "metrics.jsonl") if r["kind"] == "train"]
        for path in (tmp_path / "run", folder)
    ]
    assert losses[0] == losses[1]


def test_a_missing_or_changed_base_is_one_sentence(tiny_task, tmp_path, capsys):
    task = tmp_path / "task"
    shutil.copytree(tiny_task / "checkpoint", task / "checkpoint")
    write_examples(task / "data")
    paths = f"task.data = '{task}/data'\nfinetune.initial_weights = '{task}/checkpoint'\n"
    (task / "run.gin").write_text(SETTINGS + paths)
    outcome = run(task, task / "run", *ADAPTERS, "finetune.epochs=1")
    jax.block_until_ready(glm_jax.load(task / "run")[1])

    # Moved together with its base, the run still opens.
    task.rename(tmp_path / "moved")
    moved = tmp_path / "moved"
    jax.block_until_ready(glm_jax.load(moved / "run")[1])
    capsys.readouterr()

    def refused(*command: str) -> str:
        assert main(list(command)) in (1, 2)
        error = capsys.readouterr().err
        assert error.count("\n") == 1, error
        return error

    out = str(tmp_path / "out")
    (moved / "checkpoint").rename(moved / "elsewhere")
    message = "holds only what was trained of the weights at"
    assert message in refused("convert", str(moved / "run"), out)
    assert message in refused("fill", str(moved / "run"), "a [MASK]")

    other = tmp_path / "other"
    longer = ["--max_sequence_length=70"]
    assert main(["convert", str(moved / "elsewhere"), str(moved / "checkpoint"), *longer]) == 0
    capsys.readouterr()
    assert "says model.max_sequence_length = 64" in refused("convert", str(moved / "run"), out)
    shutil.rmtree(moved / "checkpoint")
    assert main(["convert", str(moved / "elsewhere"), str(other), "--dtype=float16"]) == 0
    other.rename(moved / "checkpoint")
    capsys.readouterr()
    message = "_embedding has changed"
    assert message in refused("convert", str(moved / "run"), out)
    assert message in refused("fill", str(moved / "run"), "a [MASK]")
    command = ["finetune", f"--gin_file={moved / 'run' / 'config.gin'}"]
    paths = [f"--gin.task.data={moved}/data", "--gin.finetune.epochs=2"]
    paths.append(f"--gin.finetune.initial_weights={moved}/checkpoint")
    assert message in refused(*command, *paths)
    data = ["--task=custom", f"--data={moved / 'data'}"]
    assert message in refused("evaluate", str(moved / "run"), *data, paths[-1])
    assert outcome.results is not None


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["lora.rank=-1"], "lora.rank is -1"),
        (["lora.rank=2", "lora.targets=('mlp',)"], "lora.targets is ('mlp',); expected some of"),
        (["lora.rank=2", "lora.dropout=1.0"], "lora.dropout is 1.0"),
        (["lora.rank=2", "finetune.random_weights=True"], "nothing saves random weights"),
        (
            ["lora.rank=2", "finetune.freeze_transformer=True", "finetune.tune_prefix_layers=1"],
            "lora.rank is 2, which freezes the network",
        ),
    ],
)
def test_bad_settings_are_one_sentence(tiny_task, tmp_path, capsys, settings, sentence):
    flags = [f"--gin.{setting}" for setting in settings]
    gin_file = f"--gin_file={tiny_task / 'run.gin'}"
    folder = tmp_path / "run"
    assert main(["finetune", gin_file, f"--gin.finetune.run_folder={folder}", *flags]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1, error
    assert not folder.exists()


def test_only_targets_have_adapters():
    lora = LoraConfig(rank=2, targets=("mlp/up",))
    fields: Any = MODEL
    model = GLM(GLMConfig(**fields), linear=linear_kind(lora))
    tokens = jnp.zeros((1, 4), jnp.int32)
    inputs = (tokens, jnp.zeros((1, 2, 4), jnp.int32), jnp.ones(1, jnp.int32))
    shapes: Any = jax.eval_shape(lambda: nn.unbox(model.init(jax.random.key(0), *inputs)))
    adapters = [path for path, _ in leaf_paths(shapes["params"]) if "lora" in path]
    assert adapters == ["layers/mlp/up/lora_a", "layers/mlp/up/lora_b"]
