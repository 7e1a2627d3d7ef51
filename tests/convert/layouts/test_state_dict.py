"""State dicts as training code wraps them: names, dictionaries, single files, and what is extra."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glm_jax.cli.main import main
from glm_jax.convert.convert import convert
from glm_jax.convert.formats.safetensors import SafetensorsWriter
from glm_jax.convert.formats.torch_writer import Announced, TorchWriter
from glm_jax.convert.layouts.state_dict import find_parameters, plain_name
from glm_jax.convert.load import load
from glm_jax.convert.open import open_source
from glm_jax.convert.weights import TensorInfo
from glm_jax.errors import UsageError
from tests.convert.tiny import HEADS, bytes_of, infos_of, tiny_tensors, write_hugging_face

TENSORS = tiny_tensors()
WORDS = "word_embeddings.weight"
PREFIXES = [
    "",
    "module.",
    "model.",
    "glm.",
    "_orig_mod.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "module.module.",
    "module.model.glm.",
    "_forward_module.model.",
    "_fsdp_wrapped_module._orig_mod.glm.",
]
EXTRA = {
    "lm_head.weight": np.ones((24, 8), np.float16),
    "glm.position_ids": np.arange(7).reshape(1, 7),
    "pool_layer.dense.bias": np.ones(8, np.float32),
    "optimizer.state.0.exp_avg": np.ones(8, np.float32),
    "model_ema.word_embeddings.weight": np.ones((24, 8), np.float16),
}


def prefixed(prefix: str) -> dict[str, np.ndarray]:
    return {f"{prefix}{name}": tensor for name, tensor in TENSORS.items()}


def save_torch(path: Path, content: Mapping[str, Any]) -> Path:
    """Writes a torch file of nested dictionaries of arrays and numbers."""
    arrays: list[np.ndarray] = []

    def announced(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: announced(inner) for key, inner in value.items()}
        if not isinstance(value, np.ndarray):
            return value
        arrays.append(value)
        return Announced(str(len(arrays) - 1), TensorInfo(value.shape, value.dtype))

    writer = TorchWriter(path, announced(content))
    for number, array in enumerate(arrays):
        writer.write(str(number), array)
    writer.finish()
    return path


def save_safetensors(path: Path, tensors: Mapping[str, np.ndarray]) -> Path:
    writer = SafetensorsWriter(path, infos_of(tensors))
    for name, tensor in tensors.items():
        writer.write(name, tensor)
    writer.finish()
    return path


def assert_reads(path: Path, **options: Any) -> None:
    with open_source(path, HEADS, **options) as source:
        assert dict(source.tensors) == infos_of(TENSORS)
        for name, tensor in TENSORS.items():
            assert bytes_of(source.read(name)) == bytes_of(tensor), name


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("form", ["weights.pt", "weights.bin", "weights.safetensors", "folder"])
def test_prefixes_of_wrappers_are_removed(form, prefix, tmp_path):
    if form == "folder":
        (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": HEADS}))
        save_torch(tmp_path / "pytorch_model.bin", prefixed(prefix))
        assert_reads(tmp_path)
    elif form == "weights.safetensors":
        assert_reads(save_safetensors(tmp_path / form, prefixed(prefix)))
    else:
        assert_reads(save_torch(tmp_path / form, prefixed(prefix)))


def test_components_of_wrappers_inside_names_are_removed(tmp_path):
    inner = {
        name.replace("layers.1.", "layers.1._checkpoint_wrapped_module.").replace(
            "layers.0.", "layers._orig_mod.0._fsdp_wrapped_module."
        ): tensor
        for name, tensor in TENSORS.items()
    }
    assert inner.keys() != TENSORS.keys()
    assert_reads(save_torch(tmp_path / "weights.pt", inner))


def test_prefixes_may_be_mixed(tmp_path):
    mixed = {
        f"{PREFIXES[number % len(PREFIXES)]}{name}": tensor
        for number, (name, tensor) in enumerate(TENSORS.items())
    }
    assert_reads(save_safetensors(tmp_path / "weights.safetensors", mixed))


OPTIMIZER = {"state": {"word_embeddings.weight": np.ones(3, np.float32)}, "param_groups": [1]}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state},
        lambda state: {"model": state, "optimizer": OPTIMIZER, "epoch": 3},
        lambda state: {"module": state, "iteration": 5, "loss": np.ones(1, np.float32)},
        lambda state: {"model_state_dict": state, "optimizer_state_dict": OPTIMIZER},
        lambda state: {"state_dict": {"model": state}, "epoch": 1},
        lambda state: {"model": {"module": state}, "state_dict": {"step": 3}},
        lambda state: {"module": state, "model": {"hidden_size": 8}},
    ],
)
@pytest.mark.parametrize("prefix", ["", "module._orig_mod."])
def test_dictionaries_around_the_state_dict_are_opened(wrap, prefix, tmp_path):
    assert_reads(save_torch(tmp_path / "weights.pt", wrap(prefixed(prefix))))


def test_two_state_dicts_are_refused(tmp_path):
    path = save_torch(tmp_path / "weights.pt", {"model": TENSORS, "module": TENSORS})
    with pytest.raises(UsageError, match="under 'module' and 'model': save one of them alone"):
        open_source(path, HEADS, ignore_extra=True)
    path = save_torch(tmp_path / "both.pt", {**TENSORS, "state_dict": TENSORS})
    with pytest.raises(UsageError, match="under the outermost keys and 'state_dict'"):
        open_source(path, HEADS, ignore_extra=True)


@pytest.mark.parametrize("form", ["weights.pt", "weights.safetensors"])
def test_two_tensors_of_one_parameter_are_refused(form, tmp_path):
    tensors = {**TENSORS, f"module.{WORDS}": TENSORS[WORDS]}
    path = tmp_path / form
    (save_torch if form.endswith(".pt") else save_safetensors)(path, tensors)
    for ignore_extra in (False, True):
        with pytest.raises(UsageError, match=rf"'{WORDS}' in .*'module.{WORDS}' in .* are both"):
            open_source(path, HEADS, ignore_extra=ignore_extra)


@pytest.mark.parametrize("form", ["weights.pt", "weights.bin"])
def test_extra_tensors_are_named_and_left_out_on_request(form, tmp_path):
    path = save_torch(tmp_path / form, {**prefixed("glm."), **EXTRA})
    with pytest.raises(UsageError) as refused:
        open_source(path, HEADS)
    message = str(refused.value)
    assert str(path) in message and "5 tensors" in message and "--ignore_extra" in message
    for name in ("lm_head.weight", "glm.position_ids", "pool_layer.dense.bias", "and 2 more"):
        assert name in message
    assert_reads(path, ignore_extra=True)
    with open_source(path, HEADS, ignore_extra=True) as source:
        assert set(source.extra) == set(EXTRA)


@pytest.mark.parametrize("form", ["weights.safetensors", "folder"])
@pytest.mark.parametrize("ignore_extra", [False, True])
def test_extra_tensors_of_hugging_face_are_left_out(form, ignore_extra, tmp_path):
    tensors = {**prefixed("glm."), **EXTRA}
    path = tmp_path / form
    if form == "folder":
        write_hugging_face(path, TENSORS)
        (path / "model.safetensors").unlink()
        save_safetensors(path / "model.safetensors", tensors)
    else:
        save_safetensors(path, tensors)
    assert_reads(path, ignore_extra=ignore_extra)
    with open_source(path, HEADS, ignore_extra=ignore_extra) as source:
        assert set(source.extra) == set(EXTRA)


def test_extra_tensors_of_several_files_are_counted_together(tmp_path, caplog):
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": HEADS}))
    names = list(TENSORS)
    weight_map = {}
    for number, part in enumerate((names[:10], names[10:])):
        file = f"pytorch_model-{number}.bin"
        tensors = {name: TENSORS[name] for name in part} | {f"head_{number}.weight": np.ones(2)}
        save_torch(tmp_path / file, tensors)
        weight_map |= dict.fromkeys(tensors, file)
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert_reads(tmp_path)
    load(tmp_path, ignore_extra=True)
    assert not caplog.messages
    load(tmp_path)
    sentence = "has 2 tensors that GLM doesn't have, left out here: "
    assert caplog.messages == [f"{tmp_path} {sentence}'head_0.weight', 'head_1.weight'"]


def test_what_is_no_tensor_is_extra_too(tmp_path):
    path = save_torch(tmp_path / "weights.pt", {**TENSORS, "step": 7, "_extra_state": None})
    with pytest.raises(UsageError, match="2 tensors 'step', '_extra_state', which GLM doesn't"):
        open_source(path, HEADS)
    assert_reads(path, ignore_extra=True)
    path = save_torch(tmp_path / "broken.pt", {**TENSORS, f"module.{WORDS}": 7})
    with pytest.raises(UsageError, match=rf"'module.{WORDS}' in .* is not a tensor"):
        open_source(path, HEADS, ignore_extra=True)


def test_other_networks_are_refused_whatever_is_ignored(tmp_path):
    foreign = {"bert.encoder.weight": np.ones((2, 2), np.float16)}
    path = save_torch(tmp_path / "weights.pt", {"state_dict": foreign})
    with pytest.raises(UsageError, match=r"'bert\.encoder\.weight', which GLM doesn't have"):
        open_source(path, HEADS)
    with pytest.raises(UsageError, match="has no tensor word_embeddings"):
        open_source(path, HEADS, ignore_extra=True)


def test_one_file_of_a_folder_is_described_by_its_config(tmp_path):
    folder = write_hugging_face(tmp_path / "folder", TENSORS)
    with open_source(folder / "model.safetensors") as source:
        assert source.metadata.num_attention_heads == HEADS
    with pytest.raises(UsageError, match=r"config\.json has no weights in it: give the folder"):
        open_source(folder / "config.json")
    sharded = write_hugging_face(tmp_path / "sharded", TENSORS, max_shard_bytes=2000)
    shard = next(sharded.glob("model-00001-*"))
    with pytest.raises(UsageError, match=rf"is one of the files .* give the folder {sharded}"):
        open_source(shard)


def test_every_entrance_takes_wrapped_files(tmp_path, capsys):
    """The command, the function of conversion, and loading."""
    path = save_torch(tmp_path / "w.pt", {**prefixed("_orig_mod.glm."), **EXTRA})
    model, params = load(path, num_attention_heads=HEADS, ignore_extra=True)
    assert model.config.num_attention_heads == HEADS
    np.testing.assert_array_equal(params["word_embedding"], TENSORS[WORDS].astype(np.float32))
    with pytest.raises(UsageError, match="ignore_extra=True in Python"):
        load(path, num_attention_heads=HEADS)

    def quiet(_description: str, _bytes: int):
        return contextlib.nullcontext(lambda _done: None)

    options = {"stages": quiet, "num_attention_heads": HEADS}
    with pytest.raises(UsageError, match="ignore_extra"):
        convert(path, tmp_path / "out", "huggingface", **options)
    report = convert(path, tmp_path / "out", "huggingface", **options, ignore_extra=True)
    assert set(report.extra) == set(EXTRA)
    assert_reads(tmp_path / "out")
    arguments = ["convert", str(path), str(tmp_path / "run"), f"--num_attention_heads={HEADS}"]
    assert main(arguments) == 2
    assert "--ignore_extra" in capsys.readouterr().err and not (tmp_path / "run").exists()
    assert main([*arguments, "--ignore_extra"]) == 0
    assert "left out     5 that GLM doesn't have: 'lm_head.weight'" in capsys.readouterr().out
    assert_reads(tmp_path / "run")


def test_a_file_of_safetensors_is_converted_without_what_is_extra(tmp_path, capsys):
    path = save_safetensors(tmp_path / "w.safetensors", {**prefixed("_orig_mod.glm."), **EXTRA})
    arguments = ["convert", str(path), str(tmp_path / "run"), f"--num_attention_heads={HEADS}"]
    assert main(arguments) == 0
    assert "left out     5 that GLM doesn't have: 'lm_head.weight'" in capsys.readouterr().out
    assert_reads(tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        (WORDS, WORDS),
        (f"module.{WORDS}", WORDS),
        ("glm.transformer._orig_mod.final_layernorm.bias", "transformer.final_layernorm.bias"),
        ("", None),
        ("module", None),
        ("model.", None),
        (f"modules.{WORDS}", None),
        (f"transformer.model.{WORDS}", None),
        (f"optimizer.{WORDS}", None),
        (f"module..{WORDS}", None),
        ("model." * 100_000 + WORDS, WORDS),
    ],
    ids=range(11),
)
def test_names(name, plain):
    assert plain_name(name) == plain


def test_the_names_of_a_state_dict_are_sorted_out():
    found = find_parameters([f"glm.{WORDS}", "lm_head.weight"], lambda _: "file")
    assert found.names == {WORDS: f"glm.{WORDS}"} and found.extra == ("lm_head.weight",)
