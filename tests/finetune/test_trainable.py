"""Freezing: which parameters have gradients, optimizer state, and are saved."""

from __future__ import annotations

import json
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
from glm_jax.convert.base_weights import checksum_of
from glm_jax.convert.layouts.native_reader import open_arrays
from glm_jax.errors import UsageError
from glm_jax.finetune.config import FinetuneRunConfig
from glm_jax.finetune.lora import linear_kind
from glm_jax.finetune.lora_config import LoraConfig
from glm_jax.finetune.model_scores import Scorer
from glm_jax.finetune.program import FinetuneProgram, make_finetune_program
from glm_jax.finetune.prompts import NUM_FREQUENT_WORDS, words_as_prompts
from glm_jax.finetune.run import finetune
from glm_jax.finetune.trainable import (
    TrainedParameters,
    join,
    leaf_paths,
    partition,
    separate_layers,
    train_all,
)
from glm_jax.finetune.weights import parameter_checksums
from glm_jax.model import GLM, GLMConfig
from glm_jax.parallel.mesh import MeshConfig, make_mesh
from glm_jax.train.optimizer import OptimizerConfig
from tests.serve.tiny_checkpoint import MODEL

# Optimizer state and gradients of adapters, as a share of those of full finetuning.
MAX_SHARE = 0.02
GLM_2B = GLMConfig(
    vocab_size=50304,
    num_layers=36,
    hidden_size=2048,
    num_attention_heads=32,
    max_sequence_length=1024,
    compute_dtype="bfloat16",
)


def run(task: Path, folder: Path, *bindings: str):
    settings = [f"finetune.run_folder={folder}", *bindings]
    config = read_configuration([task / "run.gin"], settings, FinetuneRunConfig)
    return finetune(config, Console(quiet=True))


def saved_arrays(folder: Path, step: int) -> dict[str, np.ndarray]:
    arrays = open_arrays(epath.Path(folder) / "checkpoints" / str(step))
    return {path: stored.array.read().result() for path, stored in arrays.items()}


def flat(params) -> dict[str, np.ndarray]:
    return {path: np.asarray(leaf) for path, leaf in leaf_paths(params)}


def num_bytes(tree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def program_of_2b(lora: LoraConfig, is_trained) -> FinetuneProgram:
    model = GLM(GLM_2B, linear=linear_kind(lora))
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    optimizer = OptimizerConfig(learning_rate=1e-5, decay_steps=10)
    return make_finetune_program(Scorer(model), {}, optimizer, mesh, is_trained=is_trained)


def test_adapters_of_glm_2b_need_little_optimizer_state_and_gradients():
    full = program_of_2b(LoraConfig(), train_all)
    adapted = program_of_2b(LoraConfig(rank=8), TrainedParameters(freeze_network=True))
    # Gradients have the shapes and dtypes of the trained parameters.
    for part in ("params", "optimizer_state"):
        share = num_bytes(getattr(adapted.abstract_state, part)) / num_bytes(
            getattr(full.abstract_state, part)
        )
        assert 0 < share < MAX_SHARE
    frozen = flat_shapes(adapted.abstract_frozen)
    assert frozen.keys() == flat_shapes(full.abstract_state.params).keys()
    by_dtype = {path: leaf.dtype.name for path, leaf in frozen.items()}
    assert by_dtype["layers/mlp/up/kernel"] == by_dtype["word_embedding"] == "bfloat16"
    assert by_dtype["layers/mlp_layernorm/scale"] == "float32"


def flat_shapes(tree) -> dict[str, jax.ShapeDtypeStruct]:
    return dict(leaf_paths(tree))


@pytest.mark.parametrize(
    ("trained", "expected"),
    [
        (TrainedParameters(("word_embedding",)), ["layers/mlp/up/kernel", "final_layernorm/bias"]),
        (TrainedParameters(("layers",)), ["word_embedding", "final_layernorm/bias"]),
        (TrainedParameters(("layers/*/kernel",)), ["word_embedding", "final_layernorm/bias"]),
        (TrainedParameters(("*embedding", "*/bias")), ["layers/mlp/up/kernel"]),
        (TrainedParameters(freeze_network=True), []),
        (TrainedParameters(freeze_network=True, train_layers=True), ["layers/mlp/up/kernel"]),
        (
            TrainedParameters(("layers/mlp",), freeze_network=True, train_layers=True),
            [],
        ),
    ],
)
def test_patterns_freeze_what_they_match(trained, expected):
    network = ["word_embedding", "layers/mlp/up/kernel", "final_layernorm/bias"]
    assert [path for path in network if trained(path)] == expected
    added = ["classification_head/pool_layer/bias", "prompt_encoder/x", "layers/mlp/up/lora_a"]
    assert all(map(trained, added))
    assert trained("later_layers/mlp/up/kernel") == (
        "layers/mlp/up/kernel" in expected and not trained.freeze_network
    )


def test_a_pattern_without_a_match_is_refused():
    network = ["word_embedding", "layers/mlp/up/kernel"]
    with pytest.raises(UsageError, match="'embeddings', which matches no parameter of the network"):
        TrainedParameters(("embeddings",)).check(network, anything_added=False)
    with pytest.raises(UsageError, match="leave nothing to train"):
        TrainedParameters(("*",)).check(network, anything_added=False)
    TrainedParameters(("*",)).check(network, anything_added=True)


def test_partition_and_join_are_inverse():
    tree = {"a": {"b": 1, "c": 2}, "d": 3}
    trained, frozen = partition(tree, lambda path: path != "a/c")
    assert (trained, frozen) == ({"a": {"b": 1}, "d": 3}, {"a": {"c": 2}})
    assert join(trained, frozen) == tree
    assert partition({}, train_all) == ({}, {})


def test_a_network_with_separate_layers_is_the_same():
    fields: Any = {**MODEL, "num_layers": 3}
    config = GLMConfig(**fields)
    model: Any = GLM(config)
    tokens = jnp.arange(8)[None]
    inputs = (tokens, jnp.stack([tokens, tokens], 1), jnp.asarray([4]))
    params = jax.tree.map(
        lambda leaf: leaf + jax.random.normal(jax.random.key(7), leaf.shape) / 10,
        nn.unbox(model.init(jax.random.key(0), *inputs))["params"],
    )
    separated: Any = GLM(config, num_separate_layers=1)
    found = separated.apply({"params": separate_layers(params, 1)}, *inputs)
    np.testing.assert_allclose(found, model.apply({"params": params}, *inputs), atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "changed"),
    [
        (["finetune.freeze=('word_embedding','layers/attention/*')"], None),
        pytest.param(
            *(["finetune.freeze_transformer=True", "finetune.tune_prefix_layers=1"], "layers"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["patterns", "first layers"],
)
def test_frozen_parameters_stay_and_are_not_saved(
    tiny_task, tmp_path, monkeypatch, settings, changed
):
    settings = [*settings, "finetune.epochs=2"]
    outcome = run(tiny_task, tmp_path / "run", *settings)
    assert outcome.results is not None
    base = flat(glm_jax.load(tiny_task / "checkpoint")[1])
    merged = flat(glm_jax.load(tmp_path / "run")[1])
    saved = saved_arrays(tmp_path / "run", outcome.steps)
    assert merged.keys() == base.keys()
    for path, leaf in merged.items():
        if changed is None:
            is_frozen = path == "word_embedding" or path.startswith("layers/attention/")
            assert (path in saved) != is_frozen
            assert np.array_equal(leaf, base[path]) == is_frozen
        elif path.startswith(changed):
            assert len(saved[path]) == 1
            np.testing.assert_array_equal(leaf[0], saved[path][0])
            assert not np.array_equal(leaf[0], base[path][0])
            np.testing.assert_array_equal(leaf[1], base[path][1])
        else:
            assert path not in saved
            np.testing.assert_array_equal(leaf, base[path])
    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "asked", lambda self, at: at == 7)
        run(tiny_task, tmp_path / "again", *settings)
    assert run(tiny_task, tmp_path / "again", *settings).results == outcome.results
    for path, leaf in saved_arrays(tmp_path / "again", outcome.steps).items():
        np.testing.assert_array_equal(leaf, saved[path])


@pytest.mark.parametrize(
    "settings",
    [
        ["prompt.prefix=2", "prompt.encoder=mlp", "prompt.initial=words"],
        ["task.cloze=False", "task.pool=pad"],
    ],
    ids=["prompts", "head"],
)
def test_a_frozen_network_with_what_is_trained_for_it(tiny_task, tmp_path, capsys, settings):
    settings = [*settings, "finetune.freeze_transformer=True", "optimizer.learning_rate=1e-2"]
    outcome = run(tiny_task, tmp_path / "run", *settings)
    assert outcome.results is not None
    saved = saved_arrays(tmp_path / "run", outcome.steps)
    assert {path.split("/")[0] for path in saved} <= {"prompt_encoder", "classification_head"}
    base = flat(glm_jax.load(tiny_task / "checkpoint")[1])
    for path, leaf in flat(glm_jax.load(tmp_path / "run")[1]).items():
        np.testing.assert_array_equal(leaf, base[path])
    capsys.readouterr()
    data = ["--task=custom", f"--data={tiny_task / 'data'}", "--json"]
    assert main(["evaluate", str(tmp_path / "run"), *data]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == outcome.results["accuracy"]


def test_prompts_start_as_mixtures_of_words_and_verbalizers():
    # Rows that say which token they are.
    table = jnp.zeros((6000, 2)).at[:, 0].set(1.0).at[7].set(jnp.asarray([0.0, 1.0]))
    table = table.at[NUM_FREQUENT_WORDS:].set(100.0)
    found = np.asarray(words_as_prompts(jax.random.key(1), table, [7], 400))
    assert found.max() <= 1  # nothing of the rare words
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    share = found[:, 1]
    assert 0 <= share.min() < 0.05 and 0.95 < share.max() <= 1
    assert abs(share.mean() - 0.5) < 3 * np.sqrt(1 / 12 / 400)


@pytest.mark.parametrize("name", ["copa", "wsc", "record"])
def test_tasks_without_verbalizers_refuse_prompts_made_of_words(tiny_task, tmp_path, capsys, name):
    flags = [f"--gin.task.name={name}", "--gin.prompt.num_tokens=0", "--gin.prompt.prefix=2"]
    flags += ["--gin.task.patterns=()", "--gin.task.words={}", "--gin.prompt.initial=words"]
    flags.append(f"--gin.finetune.run_folder={tmp_path / 'run'}")
    assert main(["finetune", f"--gin_file={tiny_task / 'run.gin'}", *flags]) == 2
    error = capsys.readouterr().err
    assert f"task {name} scores answers and has no verbalizers" in error, error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["finetune.freeze=('embedding',)"], "has 'embedding', which matches no parameter"),
        (["finetune.freeze_transformer=True"], "leave nothing to train"),
        (["finetune.tune_prefix_layers=1"], "finetune.freeze_transformer freezes"),
        (
            ["finetune.freeze_transformer=True", "finetune.tune_prefix_layers=3"],
            "finetune.tune_prefix_layers is 3, but the network has 2 layers",
        ),
        (["prompt.initial=words"], "there are no prompts"),
    ],
)
def test_bad_settings_are_one_sentence(tiny_task, tmp_path, capsys, settings, sentence):
    flags = [f"--gin.{setting}" for setting in settings]
    folder = tmp_path / "run"
    gin_file = f"--gin_file={tiny_task / 'run.gin'}"
    assert main(["finetune", gin_file, f"--gin.finetune.run_folder={folder}", *flags]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1, error
    assert not folder.exists()


def test_checksums_on_devices_and_on_the_host_agree_and_notice_any_change():
    random = np.random.default_rng(0)
    params = {
        "word_embedding": random.normal(size=(5, 3)).astype(np.float32),
        "layers": {"x": {"kernel": random.normal(size=(2, 3, 3, 4)).astype(np.float32)}},
    }
    found = parameter_checksums(jax.tree.map(jnp.asarray, params))
    assert found["word_embedding"] == [checksum_of(params["word_embedding"])]
    assert found["layers/x/kernel"] == [
        checksum_of(layer) for layer in params["layers"]["x"]["kernel"]
    ]
    table = params["word_embedding"]
    for index in np.ndindex(table.shape):
        changed = table.copy()
        changed[index] = np.nextafter(changed[index], np.float32(9))
        assert checksum_of(changed) != checksum_of(table)
    assert checksum_of(table[::-1]) != checksum_of(table)
