"""A conversion as a whole: what it changes on request, what it refuses, what it leaves behind."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from glm_jax.convert.changes import Changes
from glm_jax.convert.convert import convert
from glm_jax.convert.dimensions import Dimensions
from glm_jax.convert.layouts.native_writer import NativeDestination
from glm_jax.convert.open import open_source
from glm_jax.convert.tensors import DTYPES
from glm_jax.errors import RunError, UsageError
from tests.convert.tiny import HEADS, tiny_tensors, write_hugging_face, write_original

ROOT = Path(__file__).resolve().parents[2]
WORDS = "word_embeddings.weight"
POSITIONS = "transformer.position_embeddings.weight"
BLOCK_POSITIONS = "transformer.block_position_embeddings.weight"


def quiet(_description: str, _bytes: int):
    return contextlib.nullcontext(lambda _done: None)


def run(source: Path, out: Path, kind: str = "native", **options):
    options = {"stages": quiet, "num_attention_heads": HEADS, **options}
    return convert(source, out, kind, **options)


@pytest.fixture
def tensors():
    return tiny_tensors()


@pytest.fixture
def source(tmp_path, tensors) -> Path:
    return write_original(tmp_path / "source", tensors, 2)


def read_all(folder: Path) -> dict[str, np.ndarray]:
    with open_source(folder, HEADS) as opened:
        return {name: opened.read(name) for name in opened.tensors}


def assert_nothing_left(folder: Path) -> None:
    assert [path.name for path in folder.iterdir()] == ["source"]


def test_the_report_tells_what_was_done(source, tmp_path):
    stages = []

    def recording(description: str, num_bytes: int):
        stages.append([description, num_bytes, 0])

        def progress(done: int) -> None:
            stages[-1][2] += done

        return contextlib.nullcontext(progress)

    report = run(source, tmp_path / "out", stages=recording)
    assert report.num_bytes == 2 * report.num_parameters
    assert [(what, done == total == report.num_bytes) for what, total, done in stages] == [
        ("converting", True),
        ("checking", True),
    ]
    text = "\n".join(report.lines())
    for part in ("original", "native", "hidden size 8", "4, as given", "float16", "iteration    5"):
        assert part in text
    assert f"{len(report.tensors)} of {len(report.tensors)} tensors" in text


def test_heads_are_recorded_and_not_contradicted(source, tmp_path):
    run(source, tmp_path / "out")
    report = run(tmp_path / "out", tmp_path / "again", num_attention_heads=None)
    assert report.config.num_attention_heads == HEADS and report.heads == "as recorded"
    with pytest.raises(UsageError, match=r"given as 2, but .*out records 4"):
        run(tmp_path / "out", tmp_path / "third", num_attention_heads=2)


def test_unknown_heads_are_hidden_size_over_64(tmp_path):
    wide = tiny_tensors(dimensions=Dimensions(8, 1, 128, 3, True, None))
    write_original(tmp_path / "source", wide)
    report = run(tmp_path / "source", tmp_path / "out", num_attention_heads=None)
    assert report.config.num_attention_heads == 2 and "assumed" in report.heads


@pytest.mark.parametrize("kind", ["native", "original", "huggingface"])
def test_position_tables_are_extended_by_repeating_them(source, tensors, tmp_path, kind):
    changes = Changes(max_sequence_length=16, new_positions="repeat")
    report = run(source, tmp_path / "out", kind, changes=changes)
    found = read_all(tmp_path / "out")
    for name in (POSITIONS, BLOCK_POSITIONS):
        assert found[name].shape == (17, 8)
        for row in range(17):
            np.testing.assert_array_equal(found[name][row], tensors[name][row % 7])
    for name in tensors.keys() - {POSITIONS, BLOCK_POSITIONS}:
        np.testing.assert_array_equal(found[name], tensors[name])
    assert "positions    6 extended to 16: the new rows repeat the table" in report.lines()


@pytest.mark.parametrize("kind", ["native", "original", "huggingface"])
def test_position_tables_are_extended_by_random_rows_as_in_the_original(
    source, tensors, tmp_path, kind
):
    changes = Changes(max_sequence_length=1006, seed=3)
    report = run(source, tmp_path / "out", kind, changes=changes)
    found = read_all(tmp_path / "out")
    added = []
    for name in (POSITIONS, BLOCK_POSITIONS):
        np.testing.assert_array_equal(found[name][:7], tensors[name])
        added.append(found[name][7:].astype(np.float64))
        assert added[-1].shape == (1000, 8)
        assert added[-1].std() == pytest.approx(0.02, rel=0.05)
        assert abs(added[-1].mean()) < 0.002
    assert not np.array_equal(*added)
    for name in tensors.keys() - {POSITIONS, BLOCK_POSITIONS}:
        np.testing.assert_array_equal(found[name], tensors[name])
    line = "positions    6 extended to 1006: new rows random (normal, 0.02), seed 3"
    assert line in report.lines()


def test_the_seed_decides_the_random_rows(source, tmp_path):
    tables = []
    for number, seed in enumerate((0, 0, 1)):
        changes = Changes(max_sequence_length=16, seed=seed)
        run(source, tmp_path / str(number), changes=changes)
        tables.append(read_all(tmp_path / str(number))[POSITIONS])
    np.testing.assert_array_equal(tables[0], tables[1])
    assert not np.array_equal(tables[0], tables[2])


def test_one_dimensional_tables_have_no_row_more(tmp_path):
    tensors = tiny_tensors(dimensions=Dimensions(24, 2, 8, 6, False, None))
    write_original(tmp_path / "source", tensors)
    changes = Changes(max_sequence_length=9)
    report = run(tmp_path / "source", tmp_path / "out", changes=changes)
    assert report.config.max_sequence_length == 9
    assert report.tensors[POSITIONS].shape == (9, 8)


def test_tables_are_not_shortened(source, tmp_path):
    with pytest.raises(UsageError, match="has 7 rows, but --max_sequence_length=5 asks for 6"):
        run(source, tmp_path / "out", changes=Changes(max_sequence_length=5))
    assert_nothing_left(tmp_path)


def test_the_vocabulary_is_padded_with_zeros(source, tensors, tmp_path):
    changes = Changes(pad_vocab_to_multiple_of=20)
    run(source, tmp_path / "out", changes=changes)
    found = read_all(tmp_path / "out")[WORDS]
    np.testing.assert_array_equal(found[:24], tensors[WORDS])
    assert found.shape == (40, 8) and not found[24:].any()


def test_a_vocabulary_that_ranks_cannot_share_is_refused_with_advice(tmp_path):
    tensors = tiny_tensors(dimensions=Dimensions(25, 1, 8, 7, True, None))
    write_original(tmp_path / "source", tensors)
    with pytest.raises(UsageError, match=r"2 ranks can't share the 25 rows .*multiple_of=256"):
        run(tmp_path / "source", tmp_path / "out", "original", model_parallel_size=2)
    assert_nothing_left(tmp_path)
    changes = Changes(pad_vocab_to_multiple_of=256)
    run(tmp_path / "source", tmp_path / "out", "original", model_parallel_size=2, changes=changes)
    assert read_all(tmp_path / "out")[WORDS].shape == (256, 8)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_tensor_takes_the_dtype_asked_for(source, tensors, tmp_path, dtype):
    run(source, tmp_path / "out", "huggingface", changes=Changes(dtype=DTYPES[dtype]))
    for name, found in read_all(tmp_path / "out").items():
        assert found.dtype == DTYPES[dtype]
        np.testing.assert_array_equal(found, tensors[name].astype(DTYPES[dtype]))


def test_a_number_too_large_for_the_dtype_is_refused(tmp_path):
    tensors = tiny_tensors(np.float32)
    tensors[POSITIONS][2, 3] = 70000
    write_original(tmp_path / "source", tensors)
    with pytest.raises(UsageError, match=rf"{POSITIONS} in .* reaches 70000, which float16 can't"):
        run(tmp_path / "source", tmp_path / "out", changes=Changes(dtype=DTYPES["float16"]))
    assert_nothing_left(tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused(tmp_path, value):
    tensors = tiny_tensors()
    tensors["transformer.layers.1.mlp.dense_h_to_4h.weight"][3, 2] = value
    write_original(tmp_path / "source", tensors)
    with pytest.raises(UsageError, match=r"layers\.1\.mlp\.dense_h_to_4h\.weight in .*mp_rank_00"):
        run(tmp_path / "source", tmp_path / "out")
    assert_nothing_left(tmp_path)


def test_what_exists_is_not_overwritten(source, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("precious")
    with pytest.raises(UsageError, match="out exists already"):
        run(source, tmp_path / "out")
    assert (tmp_path / "out" / "mine").read_text() == "precious"
    (tmp_path / "out" / "mine").unlink()
    run(source, tmp_path / "out")


@pytest.mark.parametrize("kind", ["empty folder", "no folder", "text file"])
def test_what_is_no_checkpoint_is_refused(tmp_path, kind):
    path = tmp_path / "source"
    if kind == "empty folder":
        path.mkdir()
    elif kind == "text file":
        path.write_text("weights")
    with pytest.raises(UsageError, match=str(path)):
        run(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_was_written_wrong_is_found_and_not_kept(source, tmp_path, monkeypatch):
    write = NativeDestination.write

    def write_wrong(self, name: str, tensor: np.ndarray) -> None:
        write(self, name, tensor + 1 if name == POSITIONS else tensor)

    monkeypatch.setattr(NativeDestination, "write", write_wrong)
    with pytest.raises(RunError, match=rf"read back: .*{POSITIONS}"):
        run(source, tmp_path / "out")
    assert_nothing_left(tmp_path)


def test_a_full_disk_is_one_sentence(source, tmp_path, monkeypatch):
    def full(self, name: str, tensor: np.ndarray) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(NativeDestination, "write", full)
    with pytest.raises(RunError, match=r"out can't be written: .*No space left"):
        run(source, tmp_path / "out")
    assert_nothing_left(tmp_path)


SLOW_CONVERSION = """
import contextlib, pathlib, sys, time
from glm_jax.convert.layouts.native_writer import NativeDestination
from glm_jax.convert.convert import convert

source, out, begun = map(pathlib.Path, sys.argv[1:])
write = NativeDestination.write

def write_slowly(self, name, tensor):
    write(self, name, tensor)
    begun.touch()
    time.sleep(60)

NativeDestination.write = write_slowly
quiet = lambda description, num_bytes: contextlib.nullcontext(lambda done: None)
convert(source, out, "native", stages=quiet, num_attention_heads=4)
"""


def test_a_killed_conversion_starts_again(source, tensors, tmp_path):
    begun = tmp_path / "begun"
    paths = map(str, (source, tmp_path / "out", begun))
    with subprocess.Popen([sys.executable, "-c", SLOW_CONVERSION, *paths], cwd=ROOT) as process:
        while not begun.exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert not (tmp_path / "out").exists()
    run(source, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["begun", "out", "source"]
    for name, found in read_all(tmp_path / "out").items():
        np.testing.assert_array_equal(found, tensors[name])


def test_the_fault_of_the_chinese_model_is_told(tmp_path):
    tensors = tiny_tensors(dimensions=Dimensions(50048, 1, 8, 7, True, None))
    tensors[WORDS][50009] = tensors[WORDS][50007]
    write_original(tmp_path / "source", tensors)
    report = run(tmp_path / "source", tmp_path / "out")
    assert report.fault is not None and report.lines()[-1].endswith(report.fault)
    for part in ("50007", "50009", "glm-10b-chinese"):
        assert part in report.fault


def test_files_beside_hugging_face_weights_go_along(tmp_path, tensors):
    source = write_hugging_face(tmp_path / "source", tensors)
    for name in ("modeling_glm.py", "vocab.txt", "merges.txt", "tokenizer_config.json"):
        (source / name).write_text(name)
    (source / "optimizer.pt").write_bytes(b"large")
    run(source, tmp_path / "ours")
    report = run(tmp_path / "ours", tmp_path / "back", "huggingface", published=True)
    assert set(report.side_files) == {
        "modeling_glm.py",
        "vocab.txt",
        "merges.txt",
        "tokenizer_config.json",
    }
    assert (tmp_path / "back" / "vocab.txt").read_text() == "vocab.txt"
    assert not (tmp_path / "back" / "optimizer.pt").exists()


def test_our_code_replaces_that_of_another_folder(tmp_path, tensors):
    source = write_hugging_face(tmp_path / "source", tensors)
    for name in ("modeling_glm.py", "added_tokens.json", "notes.txt"):
        (source / name).write_text(name)
    report = run(source, tmp_path / "back", "huggingface")
    assert report.side_files == ("notes.txt",)
    assert any("no tokenizer" in note for note in report.notes)
    written = (tmp_path / "back" / "modeling_glm.py").read_text()
    assert "class GLMForConditionalGeneration" in written
    assert "no tokenizer" in (tmp_path / "back" / "README.md").read_text()


def test_rates_and_the_epsilon_travel_or_are_refused(tmp_path, tensors):
    source = write_hugging_face(tmp_path / "source", tensors)
    config = json.loads((source / "config.json").read_text())
    own = {"layernorm_epsilon": 1e-6, "attention_dropout_prob": 0.0, "output_dropout_prob": 0.2}
    (source / "config.json").write_text(json.dumps(config | own))
    report = run(source, tmp_path / "ours")
    assert report.config.layernorm_epsilon == 1e-6
    assert report.config.attention_dropout == 0.0 and report.config.hidden_dropout == 0.2
    run(tmp_path / "ours", tmp_path / "back", "huggingface")
    written = json.loads((tmp_path / "back" / "config.json").read_text())
    assert {name: written[name] for name in own} == own
    for kind, options in (("original", {}), ("huggingface", {"published": True})):
        with pytest.raises(UsageError, match="layernorm_epsilon is 1e-06"):
            run(tmp_path / "ours", tmp_path / "refused", kind, **options)


def test_the_other_gelu_is_refused(tmp_path, tensors):
    source = write_hugging_face(tmp_path / "source", tensors)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"hidden_act": "gelu"}))
    with pytest.raises(UsageError, match="hidden_act 'gelu'"):
        run(source, tmp_path / "ours")
