"""A folder as THUDM/glm-2b is published, in small: its names, config fields, tokenizer and head."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import glm_jax
from glm_jax.cli.main import main
from glm_jax.convert.layouts.head_tensors import HEAD, find_head
from glm_jax.convert.layouts.huggingface import HuggingFaceSource
from glm_jax.convert.load import extra_sentence, load_glm
from glm_jax.finetune.initial_head import initial_head
from glm_jax.finetune.trainable import from_paths
from tests.convert.tiny import zip_checkpoint
from tests.finetune.conftest import SETTINGS, write_examples
from tests.serve.tiny_checkpoint import MODEL, byte_tokenizer, tensors

SIZE = MODEL["hidden_size"]
CONFIG = {
    "architectures": ["GLMModel"],
    "attention_dropout_prob": 0.1,
    "attention_scale": 1.0,
    "auto_map": {
        "AutoConfig": "configuration_glm.GLMConfig",
        "AutoModel": "modeling_glm.GLMModel",
        "AutoModelForSeq2SeqLM": "modeling_glm.GLMForConditionalGeneration",
        "AutoModelForMultipleChoice": "modeling_glm.GLMForMultipleChoice",
    },
    "block_position_encoding": True,
    "checkpoint_activations": False,
    "checkpoint_num_layers": 1,
    "embedding_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "model_type": "glm",
    "output_dropout_prob": 0.1,
    "output_predict": True,
    "parallel_output": True,
    "pool_token": "cls",
    "relative_encoding": False,
    "spell_func": "lstm",
    "spell_length": None,
    "torch_dtype": "float16",
    "transformers_version": "4.23.1",
    **MODEL,
}


def head_tensors(num_labels: int = 2) -> dict[str, np.ndarray]:
    """A head under the published names."""
    random = np.random.default_rng(5)
    shapes = {
        "dense.weight": (SIZE, SIZE),
        "dense.bias": (SIZE,),
        "out_proj.weight": (num_labels, SIZE),
        "out_proj.bias": (num_labels,),
    }
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def write_published(folder: Path, prefix: str = "glm.", num_labels: int = 2, **extra) -> Path:
    """The folder, whose tokenizer is described as the published code describes it."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    named = {f"{prefix}{name}": tensor for name, tensor in tensors().items()}
    stored = {**named, **head_tensors(num_labels), **extra}
    (folder / "pytorch_model.bin").write_bytes(zip_checkpoint(stored))
    tokenizer = byte_tokenizer()
    files = list(tokenizer.saved_files().items())
    for name, suffix in (("vocab.json", ".json"), ("merges.txt", ".txt")):
        content = next(data for file, data in files if file.endswith(suffix) and "glm_" not in file)
        (folder / name).write_bytes(content)
    texts = {"[MASK]": "MASK", "[sMASK]": "sMASK", "[gMASK]": "gMASK"}
    added = {text: tokenizer.special[name] for text, name in texts.items()}
    (folder / "added_tokens.json").write_text(json.dumps(added))
    settings = {"tokenizer_class": "GLMGPT2Tokenizer", "name_or_path": "THUDM/glm-2b"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("prefix", ["glm.", "module.glm.", ""])
def test_it_loads_and_names_what_it_leaves_out(prefix, tmp_path, caplog):
    folder = write_published(tmp_path / "glm-2b", prefix)
    model, params = glm_jax.load(folder)
    assert model.config.num_attention_heads == MODEL["num_attention_heads"]
    np.testing.assert_array_equal(params["word_embedding"], tensors()["word_embeddings.weight"])
    names = "'dense.weight', 'dense.bias', 'out_proj.weight' and 1 more"
    sentence = f"{folder} has 4 tensors that GLM doesn't have, left out here: {names}"
    assert caplog.messages == [sentence]
    assert glm_jax.load_tokenizer(folder).special == byte_tokenizer().special


def test_names_of_what_is_left_out_are_shown_on_one_line():
    note = extra_sentence("glm-2b", ["a\nb\x1b[31m\ud800", "c", "d", "e"])
    assert note.endswith("'c', 'd' and 1 more") and note.isprintable() and note.encode()


def test_it_fills(tmp_path, capsys):
    folder = write_published(tmp_path / "glm-2b")
    arguments = ["fill", str(folder), "the [MASK] left", "--max_blank_length=6"]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    start = f"glm-jax: {folder} has 4 tensors that GLM doesn't have, left out here: 'dense.weight'"
    assert printed.err.startswith(start) and printed.err.count("\n") == 1
    model, params = load_glm(folder, ignore_extra=True)
    sampling = glm_jax.Sampling(max_blank_length=6)
    (filled,) = glm_jax.fill(model, params, byte_tokenizer(), ["the [MASK] left"], sampling)
    assert printed.out.strip() == filled.text.strip()


def finetune(folder: Path, work: Path, capsys, *settings: str) -> str:
    """Runs a command that trains a head for one epoch, at a learning rate that changes little."""
    data = write_examples(work / "data")
    paths = f"task.data = '{data}'\nfinetune.initial_weights = '{folder}'\n"
    gin_file = work / "run.gin"
    gin_file.write_text(f"{SETTINGS}{paths}finetune.run_folder = '{work / 'run'}'\n")
    flags = ["task.cloze=False", "finetune.epochs=1", "optimizer.learning_rate=1e-7", *settings]
    arguments = ["finetune", f"--gin_file={gin_file}", *(f"--gin.{flag}" for flag in flags)]
    assert main(arguments) == 0
    return capsys.readouterr().out


def trained_head(work: Path) -> dict[str, np.ndarray]:
    """The head that a run has saved."""
    from glm_jax.checkpoints.checkpoints import Checkpoints
    from glm_jax.convert.layouts.native_reader import open_arrays

    with Checkpoints(work / "run/checkpoints") as checkpoints:
        step = checkpoints.latest_step()
    arrays = open_arrays(glm_jax.io.paths.resolve_path(work / f"run/checkpoints/{step}"))
    return {
        path: np.asarray(array.array.read().result())
        for path, array in arrays.items()
        if path.startswith(HEAD)
    }


def test_finetuning_a_head_starts_from_that_of_the_folder(tmp_path, capsys):
    folder = write_published(tmp_path / "glm-2b", pooler=np.ones(3, np.float32))
    printed = finetune(folder, tmp_path, capsys)
    assert f"the head's pool_layer is that of {folder}\n" in printed
    assert f"the head's multichoice_head is that of {folder}\n" in printed
    assert f"{folder} has a tensor that GLM doesn't have, left out here: 'pooler'\n" in printed
    expected = head_tensors()
    found = trained_head(tmp_path)
    for layer, name in (("pool_layer", "dense"), ("multichoice_head", "out_proj")):
        kernel, bias = found[f"{HEAD}/{layer}/kernel"], found[f"{HEAD}/{layer}/bias"]
        np.testing.assert_allclose(kernel, expected[f"{name}.weight"].T, atol=1e-5)
        np.testing.assert_allclose(bias, expected[f"{name}.bias"], atol=1e-5)


@pytest.mark.parametrize("flags", [[], ["--published", "--dtype=float16"]], ids=str)
def test_a_trained_head_is_exported(flags, tmp_path, capsys):
    finetune(write_published(tmp_path / "glm-2b"), tmp_path, capsys)
    out = tmp_path / "exported"
    command = ["convert", str(tmp_path / "run"), str(out), "--to=huggingface", *flags]
    assert main(command) == 0
    assert "the run's head is in dense and out_proj" in capsys.readouterr().out
    with HuggingFaceSource(out) as source:
        head = source.read_head()
    trained = trained_head(tmp_path)
    assert head.keys() == trained.keys()
    for path, tensor in trained.items():
        rounded = tensor.astype(np.float16) if flags else tensor
        np.testing.assert_array_equal(head[path], rounded.astype(np.float32))
    fields = json.loads((out / "config.json").read_text())
    assert fields["architectures"] == ["GLMForSequenceClassification"]
    assert fields["id2label"] == {"0": "LABEL_0", "1": "LABEL_1"} and fields["pool_token"] == "cls"
    if not flags:
        assert_classifies_alike(out, head)


@pytest.mark.parametrize(
    ("settings", "note"),
    [
        pytest.param(
            ["task.pool='start'"],
            "left out is the run's head: with task.pool 'start', transformers",
            marks=pytest.mark.slow,
        ),
        (["task.cloze=True", "prompt.prefix=2"], "left out are the run's continuous prompts"),
    ],
    ids=["start", "prompts"],
)
def test_what_transformers_has_no_class_for_is_left_out(settings, note, tmp_path, capsys):
    finetune(write_published(tmp_path / "glm-2b"), tmp_path, capsys, *settings)
    out = tmp_path / "exported"
    assert main(["convert", str(tmp_path / "run"), str(out), "--to=huggingface"]) == 0
    assert f"note         {note}" in capsys.readouterr().out
    with HuggingFaceSource(out) as source:
        assert not source.extra


def assert_classifies_alike(folder: Path, head: dict[str, np.ndarray]) -> None:
    """Our head, on our network, gives the scores of the class of transformers."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from glm_jax.convert.huggingface_code.modeling_glm import GLMForSequenceClassification
    from glm_jax.finetune.heads import ClassificationHead

    special = byte_tokenizer().special
    ids = np.array([[special["ENC"], *b"xab", special["eos"]]])
    theirs: Any = GLMForSequenceClassification.from_pretrained(str(folder))
    with torch.no_grad():
        expected = theirs.eval()(torch.tensor(ids)).logits.numpy()
    model, params = load_glm(folder, ignore_extra=True)
    length = jnp.array([ids.shape[1]])
    positions = jnp.stack([jnp.arange(ids.shape[1]), jnp.zeros(ids.shape[1], jnp.int32)])[None]
    hidden: Any = model.apply(
        {"params": params}, jnp.asarray(ids), positions, length, method="hidden_states"
    )
    layers = from_paths((path.removeprefix(f"{HEAD}/"), tensor) for path, tensor in head.items())
    ours: Any = ClassificationHead(2, SIZE).apply({"params": layers}, hidden[:, 0])
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_a_layer_of_another_size_is_new(tmp_path, capsys):
    folder = write_published(tmp_path / "glm-2b", num_labels=3)
    printed = finetune(folder, tmp_path, capsys)
    assert f"the head's pool_layer is that of {folder}\n" in printed
    sizes = f"{folder} has {SIZE} x 3, the task needs {SIZE} x 2"
    assert f"the head's multichoice_head is new: {sizes}\n" in printed
    found = trained_head(tmp_path)
    kernel = found[f"{HEAD}/pool_layer/kernel"]
    np.testing.assert_allclose(kernel, head_tensors(3)["dense.weight"].T, atol=1e-5)
    assert found[f"{HEAD}/multichoice_head/kernel"].shape == (SIZE, 2)


def test_a_cloze_has_no_use_for_a_head(tmp_path, capsys):
    folder = write_published(tmp_path / "glm-2b")
    printed = finetune(folder, tmp_path, capsys, "task.cloze=True")
    assert printed.count("which this run has no use for") == 2


def test_a_folder_that_transformers_saved_with_a_head_is_read(tmp_path):
    folder = write_published(tmp_path / "saved")
    with HuggingFaceSource(folder) as source:
        head = source.read_head()
    assert head[f"{HEAD}/multichoice_head/kernel"].shape == (SIZE, 2)
    assert head[f"{HEAD}/pool_layer/kernel"].dtype == np.float32


@pytest.mark.parametrize(
    ("stored", "taken"),
    [
        (["dense.weight", "dense.bias"], ["dense.weight", "dense.bias"]),
        (["module.model.pool_layer.weight"], ["module.model.pool_layer.weight"]),
        (["pooler.dense.bias", "dense.weight", "pooler.dense.weight"], ["dense.weight"]),
        (["classifier.weight", "classifier.bias"], ["classifier.weight", "classifier.bias"]),
        (["dense.bias", "transformer.dense.weight", "mlp.out_proj.weight"], []),
    ],
)
def test_names_of_heads(stored, taken):
    assert sorted(find_head(stored).values()) == sorted(taken)


def test_a_layer_without_its_bias_is_new():
    shapes = {f"{HEAD}/pool_layer/kernel": (2, 2), f"{HEAD}/pool_layer/bias": (2,)}
    params = from_paths((path, jnp.zeros(shape)) for path, shape in shapes.items())
    head, notes = initial_head({f"{HEAD}/pool_layer/kernel": np.ones((2, 2))}, params, "glm-2b")
    assert head == {}
    assert notes == ("the head's pool_layer is new: glm-2b has none, the task needs 2 x 2",)
