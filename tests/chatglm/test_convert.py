"""ChatGLM's files in every published form: read, written and read again."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from glm_jax.convert.changes import Changes
from glm_jax.convert.convert import convert
from glm_jax.convert.layouts.huggingface_files import HuggingFaceFiles
from glm_jax.convert.load import load
from glm_jax.convert.quantize import expand_rows, quantize_rows
from glm_jax.errors import UsageError
from glm_jax.model import ChatGLMConfig
from glm_jax.parity.run import RandomInputs, check_parity
from tests.chatglm.recorded import FOLDER, arrays

pytestmark = pytest.mark.usefixtures("shared")
COMPLETE = (
    "ckpt",
    "ckpt_int8",
    "ckpt_int4",
    "ckpt_mixed_bin",
    "ckpt_mixed_safetensors",
    "ckpt_ptuning",
    "ckpt_ptuning_projection",
)
PREFIXES = ("ckpt_prefix", "ckpt_prefix_projection")


@contextmanager
def stages(_description: str, _num_bytes: int):
    yield lambda _: None


def tensors_of(path: Path) -> dict[str, np.ndarray]:
    files = HuggingFaceFiles(path)
    try:
        return {name: files.read(name) for name in files.tensors}
    finally:
        files.close()


def assert_same_files(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert found[name].shape == tensor.shape, name
        assert found[name].tobytes() == tensor.tobytes(), name


def copy_of(name: str, folder: Path, **changes: Any) -> Path:
    """A copy of a recorded folder with other fields in its config.json; None takes one out."""
    copy = folder / name
    shutil.copytree(FOLDER / name, copy)
    copy.chmod(0o755)
    for file in copy.iterdir():
        file.chmod(0o644)
    config = json.loads((copy / "config.json").read_text()) | changes
    kept = {field: value for field, value in config.items() if field not in changes or value}
    (copy / "config.json").write_text(json.dumps(kept))
    return copy


def replace_weights(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    for file in [*folder.glob("pytorch_model*"), *folder.glob("*.safetensors")]:
        file.unlink()
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("file_format", ["safetensors", "bin"])
@pytest.mark.parametrize("name", [*COMPLETE, *PREFIXES])
def test_there_and_back_bit_for_bit(name, file_format, tmp_path):
    base = FOLDER / "ckpt" if name in PREFIXES else None
    ours, back = tmp_path / "ours", tmp_path / "back"
    convert(FOLDER / name, ours, "native", stages=stages, base=base)
    convert(ours, back, "huggingface", stages=stages, file_format=file_format)
    expected = tensors_of(FOLDER / name)
    if base is not None:
        expected = tensors_of(base) | expected
    assert_same_files(tensors_of(back), expected)
    config = json.loads((FOLDER / name / "config.json").read_text())
    written = json.loads((back / "config.json").read_text())
    config.pop("_name_or_path", None)
    written.pop("_name_or_path", None)
    assert written == config


def test_files_without_what_is_repeated_come_back_without_it(tmp_path):
    source = copy_of("ckpt_int8", tmp_path)
    kept = {
        name: tensor
        for name, tensor in tensors_of(source).items()
        if name != "lm_head.weight" and "inv_freq" not in name
    }
    replace_weights(source, kept)
    convert(source, tmp_path / "ours", "native", stages=stages)
    convert(tmp_path / "ours", tmp_path / "back", "huggingface", stages=stages)
    assert_same_files(tensors_of(tmp_path / "back"), kept)


def test_quantized_word_embeddings_stay_in_files_and_are_expanded_to_run(tmp_path):
    source = copy_of("ckpt_int4", tmp_path, quantization_embeddings=True)
    tensors = tensors_of(source)
    words = tensors["transformer.word_embeddings.weight"]
    integers, scales = quantize_rows(words, 4)
    for name in ("transformer.word_embeddings", "lm_head"):
        tensors |= {f"{name}.weight": integers, f"{name}.weight_scale": scales}
    replace_weights(source, tensors)
    convert(source, tmp_path / "ours", "native", stages=stages)
    convert(tmp_path / "ours", tmp_path / "back", "huggingface", stages=stages)
    assert_same_files(tensors_of(tmp_path / "back"), tensors)
    expected = expand_rows(integers, scales, 4, np.dtype(np.float32))
    for folder in (source, tmp_path / "ours"):
        model, params = load(folder)
        assert model.config.quantization == "int4"
        np.testing.assert_array_equal(params["word_embedding"], expected)
    report = check_parity(source, tmp_path / "ours", RandomInputs(0, 1, 24), 1e-4)
    assert report.passed, report.verdict()


def test_a_network_of_the_first_release_needs_no_fields(tmp_path):
    """Its size and special ids are what absent fields mean."""
    source = copy_of("ckpt_mixed_safetensors", tmp_path, vocab_size=None)
    config = json.loads((source / "config.json").read_text())
    kept = {name: value for name, value in config.items() if not name.endswith("_token_id")}
    (source / "config.json").write_text(json.dumps(kept))
    tensors = tensors_of(source)
    words = np.zeros((150528, 64), np.float16)
    for name in ("transformer.word_embeddings.weight", "lm_head.weight"):
        tensors[name] = words
    replace_weights(source, tensors)
    config = load(source)[0].config
    assert isinstance(config, ChatGLMConfig)
    assert (config.vocab_size, config.fallback_token) == (150528, 20005)


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_quantizing_gives_the_published_integers_and_scales(quantization, tmp_path):
    out = tmp_path / quantization
    changes = Changes(quantization=quantization)
    report = convert(FOLDER / "ckpt", out, "huggingface", stages=stages, changes=changes)
    floats = convert(FOLDER / "ckpt", tmp_path / "floats", "native", stages=stages)
    assert report.num_parameters == floats.num_parameters
    found, expected = tensors_of(out), tensors_of(FOLDER / f"ckpt_{quantization}")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        if "layernorm" not in name:  # those of the recorded folder were made float32
            assert found[name].dtype == tensor.dtype, name
            assert found[name].tobytes() == tensor.tobytes(), name
    with pytest.raises(UsageError, match="is quantized already; expand it with --quantize=none"):
        convert(out, tmp_path / "again", "native", stages=stages, changes=changes)


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_expanding_gives_the_recorded_matrices(quantization, tmp_path):
    changes = Changes(quantization="none", dtype=np.dtype(np.float32))
    source = FOLDER / f"ckpt_{quantization}"
    convert(source, tmp_path / "out", "huggingface", stages=stages, changes=changes)
    found = tensors_of(tmp_path / "out")
    assert not any("scale" in name for name in found)
    recorded = arrays("quantized_io")
    prefix = f"{quantization}/dequant/"
    names = [name for name in recorded if name.startswith(prefix)]
    assert len(names) == 4
    for name in names:
        tensor = found[f"{name.removeprefix(prefix)}.weight"]
        np.testing.assert_array_equal(tensor, recorded[name])
    assert load(tmp_path / "out")[0].config.quantization == "none"


@pytest.mark.parametrize(
    ("name", "base"),
    [("ckpt_int4", None), ("ckpt_prefix", "ckpt"), ("ckpt_prefix_projection", "ckpt")],
)
def test_the_torch_twin_agrees(name, base, tmp_path):
    base = base and FOLDER / base
    convert(FOLDER / name, tmp_path / "ours", "native", stages=stages, base=base)
    inputs = RandomInputs(seed=0, batch_size=2, length=24)
    report = check_parity(FOLDER / name, tmp_path / "ours", inputs, 1e-4, base=base)
    assert (report.first.engine, report.second.engine) == ("PyTorch", "JAX")
    assert report.passed, report.verdict()


def test_rounding_of_float32_is_told_from_networks_that_differ(tmp_path, monkeypatch):
    """Scores of the long keys of this prefix move float32's numbers by more than the tolerance."""
    source, ours = FOLDER / "ckpt_ptuning_projection", tmp_path / "ours"
    convert(source, ours, "native", stages=stages)
    inputs = RandomInputs(seed=0, batch_size=2, length=64)
    report = check_parity(source, ours, inputs, 1e-4)
    assert report.passed, report.verdict()
    assert report.dtype == "float64" and report.rounding is not None
    assert 1e-4 < report.rounding < 1e-3
    assert max(each.max_absolute for each in report.differences) < 1e-10
    assert "in float64" in report.verdict()
    assert any("float32's rounding" in line for line in report.heading())
    assert report.as_json()["dtype"] == "float64"
    # A network that computes something else is beyond the tolerance in float64, too.
    monkeypatch.setattr("glm_jax.parity.torch_chatglm.RESIDUAL_SCALE", 56**0.5 * (1 + 1e-4))
    report = check_parity(source, ours, inputs, 1e-4)
    assert not report.passed and "compute differently" in report.verdict()


def test_a_config_without_fields_means_the_first_release(tmp_path):
    without_size = copy_of("ckpt", tmp_path / "a", vocab_size=None)
    with pytest.raises(UsageError, match=r"no vocab_size, which means 150528 .* tensors show 320"):
        load(without_size)
    without_id = copy_of("ckpt", tmp_path / "b", bos_token_id=None)
    with pytest.raises(UsageError, match=r"no bos_token_id, which means 150004 .* has 320 ids"):
        load(without_id)
    wrong = copy_of("ckpt", tmp_path / "c", num_layers=5)
    with pytest.raises(UsageError, match="says num_layers 5, but the tensors show 3"):
        load(wrong)


def test_int4_without_scales_is_refused(tmp_path):
    source = copy_of("ckpt_int4", tmp_path)
    kept = {n: t for n, t in tensors_of(source).items() if not n.endswith("dense.weight_scale")}
    replace_weights(source, kept)
    with pytest.raises(UsageError, match=r"quantized matrix .*dense\.weight, but not its scales"):
        load(source)


def test_a_prefix_without_its_base_is_refused():
    with pytest.raises(UsageError, match=r"a prefix of P-tuning v2, and not the network .* --base"):
        load(FOLDER / "ckpt_prefix")
    with pytest.raises(UsageError, match="has no prefix of P-tuning v2 to lay over"):
        load(FOLDER / "ckpt", base=FOLDER / "ckpt")


def test_the_original_code_has_no_such_network(tmp_path):
    with pytest.raises(UsageError, match="has neither ChatGLM nor quantized matrices"):
        convert(FOLDER / "ckpt", tmp_path / "out", "original", stages=stages)


@pytest.mark.parametrize("file_format", ["safetensors", "bin"])
@pytest.mark.parametrize("name", PREFIXES)
def test_a_prefix_alone_is_written_and_laid_over_its_base_again(name, file_format, tmp_path):
    base, ours, alone, again = (FOLDER / "ckpt", *(tmp_path / n for n in ("a", "b", "c")))
    convert(FOLDER / name, ours, "native", stages=stages, base=base)
    convert(ours, alone, "p_tuning", stages=stages, file_format=file_format)
    assert_same_files(tensors_of(alone), tensors_of(FOLDER / name))
    config = json.loads((FOLDER / name / "config.json").read_text())
    written = json.loads((alone / "config.json").read_text())
    for field in ("pre_seq_len", "prefix_projection", "num_layers", "vocab_size"):
        assert written[field] == config[field]
    convert(alone, again, "native", stages=stages, base=base)
    expected, found = load(ours)[1], load(again)[1]
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_network_without_a_prefix_has_none_to_write(tmp_path):
    with pytest.raises(UsageError, match="has no prefix of P-tuning v2 to write"):
        convert(FOLDER / "ckpt", tmp_path / "alone", "p_tuning", stages=stages)
    assert not (tmp_path / "alone").exists()
