"""`glm-jax parity`: what a user sees when all is well, and what when it isn't."""

from __future__ import annotations

import dataclasses
import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glm_jax.cli.main import main
from glm_jax.convert.dimensions import Dimensions
from tests.convert.tiny import HEADS, tiny_tensors, write_hugging_face, write_original

DIMENSIONS = Dimensions(
    vocab_size=40,
    num_layers=3,
    hidden_size=16,
    position_rows=17,
    block_positions=True,
    relative_heads=None,
)
LAYER = "transformer.layers."
ENGINE = "PyTorch" if find_spec("torch") else "JAX"
GIVEN = f"--num_attention_heads={HEADS}"
STATIONS = ["embedding", "layer 0", "layer 1", "layer 2", "final layernorm", "logits"]


def tensors(dimensions: Dimensions = DIMENSIONS) -> dict[str, np.ndarray]:
    random = tiny_tensors(np.float32, dimensions=dimensions)
    return {name: (0.3 * tensor).astype(np.float16) for name, tensor in random.items()}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> Path:
    """The same weights in all three formats, an original of two ranks, and some that differ."""
    folder = tmp_path_factory.mktemp("checkpoints")
    same = tensors()
    write_original(folder / "original", same)
    write_original(folder / "ranks", same, ranks=2)
    write_hugging_face(folder / "huggingface", same)
    assert main(["convert", str(folder / "huggingface"), str(folder / "native")]) == 0
    write_original(folder / "changed", same | {
        f"{LAYER}1.mlp.dense_4h_to_h.bias": same[f"{LAYER}1.mlp.dense_4h_to_h.bias"] + np.float16(1)
    })  # fmt: skip
    swapped = {"1": "2", "2": "1"}
    write_original(folder / "swapped", {
        name: same[f"{LAYER}{swapped[name.split('.')[2]]}{name.removeprefix(LAYER)[1:]}"]
        if name.startswith((f"{LAYER}1", f"{LAYER}2")) else tensor
        for name, tensor in same.items()
    })  # fmt: skip
    return folder


@pytest.fixture
def parity(checkpoints, tmp_path, capsys):
    """Compares two of them: (exit code, standard output, standard error, parity.json)."""

    def run(first: str, second: str, *flags: str):
        out = tmp_path / "report"
        paths = [str(checkpoints / name) for name in (first, second)]
        code = main(["parity", *paths, f"--out={out}", *flags])
        printed = capsys.readouterr()
        record = json.loads((out / "parity.json").read_text()) if out.is_dir() else None
        return code, printed.out, printed.err, record

    return run


@pytest.mark.parametrize(
    ("first", "second", "engines"),
    [
        ("original", "native", (ENGINE, "JAX")),
        ("huggingface", "native", (ENGINE, "JAX")),
        ("ranks", "huggingface", (ENGINE, ENGINE)),
        ("native", "native", ("JAX", "JAX")),
    ],
)
def test_the_same_weights_are_equal_in_every_format(parity, tmp_path, first, second, engines):
    code, out, err, record = parity(first, second)
    assert (code, err) == (0, "")
    assert all(station in out for station in STATIONS)
    verdict = out.splitlines()[-1]
    assert verdict.startswith(("equal within 0.0001", "the same, bit for bit"))
    assert record["passed"] and record["first_beyond"] is None and record["verdict"] == verdict
    assert (record["a"]["engine"], record["b"]["engine"]) == engines
    assert [row["station"] for row in record["differences"]] == STATIONS
    assert all(row["max_absolute"] <= 1e-4 for row in record["differences"])
    assert all(row["kl_per_token"] < 1e-9 for row in record["differences"])
    assert all(row["top1_agreement"] == 1 for row in record["differences"])
    assert (tmp_path / "report" / "parity.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "parity.json",
        "parity.png",
    ]


def test_a_changed_tensor_is_found_with_the_first_layer_that_shows_it(parity):
    code, out, err, record = parity("native", "changed")
    assert code == 1 and len(err.splitlines()) == 1
    assert "from layer 1 on" in err and "agree until layer 0" in err
    assert f"1 of 41 tensors have other values: {LAYER}1.mlp.dense_4h_to_h.bias" in err
    assert [line.endswith("beyond") for line in out.splitlines() if line.startswith("layer")] == [
        False,
        True,
        True,
    ]
    assert not record["passed"] and record["first_beyond"] == "layer 1"
    assert record["differences"][2]["max_absolute"] == pytest.approx(1, abs=1e-2)


def test_layers_that_changed_places_are_named(parity):
    code, _, err, record = parity("native", "swapped")
    assert code == 1 and record["first_beyond"] == "layer 1"
    assert "layers are permuted: layer 1 of B is layer 2 of A" in err


def test_a_wide_tolerance_passes_what_a_narrow_one_does_not(parity):
    assert parity("native", "changed", "--tolerance=1000")[0] == 0
    code, _, err, _ = parity("original", "native", "--tolerance=1e-12")
    if ENGINE == "PyTorch":
        assert code == 1 and "all weights are the same" in err


def test_other_heads_are_refused_where_they_are_recorded(parity):
    code, _, err, record = parity("original", "native", "--num_attention_heads=2")
    assert code == 2 and record is None
    assert "--num_attention_heads is 2" in err and "native records 4 heads" in err
    assert len(err.splitlines()) == 1


def test_heads_that_nothing_records_are_asked_for(parity):
    code, _, err, record = parity("original", "ranks")
    assert code == 2 and record is None and "--num_attention_heads" in err
    code, out, _, _ = parity("original", "ranks", GIVEN)
    assert code == 0 and "heads   4 (A: given, B: given)" in out


def test_two_networks_of_different_dimensions_are_refused(parity, checkpoints):
    other = dataclasses.replace(DIMENSIONS, num_layers=2, vocab_size=48)
    write_original(checkpoints / "other", tensors(other))
    code, _, err, record = parity("original", "other", GIVEN)
    assert code == 2 and record is None and len(err.splitlines()) == 1
    assert "different dimensions: vocab_size is 40 and 48, num_layers is 3 and 2" in err


def test_dropout_rates_are_not_compared(parity, checkpoints):
    shutil.copytree(checkpoints / "huggingface", checkpoints / "no_dropout", dirs_exist_ok=True)
    file = checkpoints / "no_dropout" / "config.json"
    names = ("embedding_dropout_prob", "attention_dropout_prob", "output_dropout_prob")
    file.write_text(json.dumps(json.loads(file.read_text()) | dict.fromkeys(names, 0.0)))
    code, _, err, record = parity("huggingface", "no_dropout")
    assert code == 0, err
    assert record is not None and "bit for bit" in record["verdict"]


def test_given_inputs_are_run(parity, tmp_path):
    draw = np.random.default_rng(0)
    arrays: Any = {
        "tokens": draw.integers(0, 40, (3, 7)),
        "position_ids": draw.integers(0, 17, (3, 2, 7)),
        "attention_mask": draw.integers(0, 2, (1, 1, 7, 7)),
    }
    np.savez(tmp_path / "batch.npz", **arrays)
    code, out, _, _ = parity("original", "native", f"--inputs={tmp_path / 'batch.npz'}")
    assert code == 0 and "batch.npz: 3 x 7 tokens" in out
    arrays["tokens"][1, 2] = 40
    np.savez(tmp_path / "batch.npz", **arrays)
    code, _, err, _ = parity("original", "native", f"--inputs={tmp_path / 'batch.npz'}")
    assert code == 2 and "tokens in" in err and "holds 40; expected 0 to 39" in err


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--tolerance=0"], "--tolerance is 0.0; expected a number above 0"),
        (["--tolerance=nan"], "--tolerance is nan"),
        (["--batch_size=0"], "--batch_size is 0; expected at least 1"),
        (["--length=17"], "--length is 17, but the network's positions end at 16"),
        (["--seed=-1"], "--seed is -1"),
        (["--seed=1", "--inputs=batch.npz"], "--seed is for random tokens"),
        (["--inputs=missing.npz"], "missing.npz is no readable .npz file"),
    ],
)
def test_flags_that_make_no_sense_are_refused(parity, flags, complaint):
    code, _, err, record = parity("native", "native", *flags)
    assert code == 2 and record is None
    assert complaint in err and len(err.splitlines()) == 1


def test_a_path_without_a_checkpoint_is_refused(parity, checkpoints):
    code, _, err, _ = parity("native", "nothing")
    assert code == 2 and str(checkpoints / "nothing") in err
