"""How differences are measured, explained and drawn, and what networks are compared on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_jax.errors import RunError, UsageError
from glm_jax.model import GLMConfig, RelativeGLMConfig
from glm_jax.parity.compare import compare_stations, first_beyond
from glm_jax.parity.engines import Stations
from glm_jax.parity.files import write_report
from glm_jax.parity.inputs import random_inputs, read_inputs
from glm_jax.parity.report import ParityReport, Side
from glm_jax.parity.weights import explain

CONFIG = GLMConfig(
    vocab_size=30, num_layers=2, hidden_size=8, num_attention_heads=2, max_sequence_length=12
)
RELATIVE = RelativeGLMConfig(vocab_size=30, num_layers=2, hidden_size=8, num_attention_heads=2)
WORDS = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)


def read(stream: np.ndarray) -> np.ndarray:
    return stream @ WORDS.T


def some_stations() -> Stations:
    draw = np.random.default_rng(1)
    stream = draw.normal(size=(3, 2, 5, 8)).astype(np.float32)
    return Stations(stream, stream[-1], read(stream[-1]))


def report_of(differences, tolerance=1e-4, explanation: str | None = "because") -> ParityReport:
    side = Side("checkpoint", "native", "JAX", "recorded")
    return ParityReport(side, side, 2, "random", tolerance, differences, explanation)


def test_equal_networks_have_no_difference_anywhere():
    stations = some_stations()
    differences = compare_stations(stations, stations, read)
    names = ["embedding", "layer 0", "layer 1", "final layernorm", "logits"]
    assert [each.station for each in differences] == names
    for each in differences:
        assert (each.max_absolute, each.kl_per_token, each.top1_agreement) == (0, 0, 1)
    assert first_beyond(differences, 1e-9) is None
    assert report_of(differences).verdict() == "the same, bit for bit, at every station"


def test_a_difference_is_measured_where_it_is():
    first, second = some_stations(), some_stations()
    second.stream[1, 0, 2, 3] += 0.5
    differences = compare_stations(first, second, read)
    changed = differences[1]
    assert changed.max_absolute == pytest.approx(0.5, rel=1e-6)
    assert changed.largest_value == pytest.approx(np.abs(first.stream[1]).max())
    assert all(each.max_absolute == 0 for each in differences if each is not changed)
    assert first_beyond(differences, 0.4) == changed
    assert first_beyond(differences, 0.6) is None


def test_divergence_and_agreement_are_those_of_the_distributions():
    first = some_stations()
    other = first.logits + np.random.default_rng(2).normal(size=first.logits.shape)
    second = dataclasses.replace(first, logits=other.astype(np.float32))
    logits = compare_stations(first, second, read)[-1]
    one, two = (np.exp(each.logits.astype(np.float64)) for each in (first, second))
    one, two = one / one.sum(-1, keepdims=True), two / two.sum(-1, keepdims=True)
    assert logits.kl_per_token == pytest.approx((one * np.log(one / two)).sum(-1).mean())
    agreement = (one.argmax(-1) == two.argmax(-1)).mean()
    assert 0 < agreement < 1 and logits.top1_agreement == pytest.approx(agreement)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_beyond_every_tolerance(value, tmp_path):
    first, second = some_stations(), some_stations()
    second.stream[0, 0, 0, 0] = value
    differences = compare_stations(first, second, read)
    beyond = first_beyond(differences, 1e9)
    assert beyond is not None and beyond.station == "embedding"
    report = report_of(differences)
    assert "from embedding on" in report.verdict() and "agree until" not in report.verdict()
    record, picture = write_report(report, tmp_path / "new" / "folder")
    rows = json.loads(record.read_text())["differences"]
    assert rows[0]["max_absolute"] is None and rows[0]["kl_per_token"] is None
    assert len(picture.read_bytes()) > 1000


@pytest.mark.parametrize("example", [0, -1])
def test_what_is_no_number_agrees_in_nothing(example):
    """Wherever it is: in the first example or the last, and in both networks at once."""
    first, second = some_stations(), some_stations()
    first.logits[example, 0, 1] = second.logits[example, 0, 1] = np.nan
    logits = compare_stations(first, second, read)[-1]
    assert logits.max_absolute == np.inf and np.isnan(logits.kl_per_token)
    num_positions = first.logits.shape[0] * first.logits.shape[1]
    assert logits.top1_agreement == pytest.approx(1 - 1 / num_positions)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    stations = some_stations()
    (tmp_path / "file").write_text("")
    report = report_of(compare_stations(stations, stations, read))
    with pytest.raises(RunError, match=r"report can't be written to .*file"):
        write_report(report, tmp_path / "file" / "folder")


def sums(**changes: int) -> dict[str, int]:
    """Check sums of a network of three layers with two tensors each."""
    layers = {
        f"transformer.layers.{layer}.{name}": 10 * layer + number
        for layer in range(3)
        for number, name in enumerate(("input_layernorm.weight", "attention.dense.bias"))
    }
    return {"word_embeddings.weight": 1} | layers | changes


def test_the_weights_that_differ_are_named():
    assert "all weights are the same" in explain(sums(), sums())
    changed = sums() | {"transformer.layers.1.attention.dense.bias": 99}
    sentence = explain(sums(), changed)
    assert sentence.startswith("1 of 7 tensors") and "layers.1.attention.dense.bias" in sentence
    everything = {name: value + 1000 for name, value in sums().items()}
    assert explain(sums(), everything).endswith(" and 4 more")


def test_layers_that_moved_are_told_from_layers_that_changed():
    rotated = dict(zip(sums(), [1, 10, 11, 20, 21, 0, 1], strict=True))
    sentence = explain(sums(), rotated)
    for here, there in ((0, 1), (1, 2), (2, 0)):
        assert f"layer {here} of B is layer {there} of A" in sentence


@given(seed=st.integers(0, 100), batch_size=st.integers(1, 4), length=st.integers(1, 12))
@settings(deadline=None, max_examples=30)
def test_random_inputs_look_like_filled_blanks(seed, batch_size, length):
    inputs = random_inputs(CONFIG, seed, batch_size, length)
    again = random_inputs(CONFIG, seed, batch_size, length)
    assert inputs.tokens.shape == (batch_size, length)
    np.testing.assert_array_equal(inputs.tokens, again.tokens)
    assert inputs.position_ids is not None and inputs.position_ids.max() < CONFIG.num_positions
    for (in_text, in_blank), prefix in zip(inputs.position_ids, inputs.attention_mask, strict=True):
        assert 1 <= prefix <= length
        assert list(in_text[:prefix]) == list(range(prefix)) and not in_blank[:prefix].any()
        assert list(in_blank[prefix:]) == list(range(1, length - prefix + 1))
        assert len(set(in_text[prefix:])) <= 1 and (in_text[prefix:] < prefix).all()


def test_random_inputs_suit_the_variants():
    flat = dataclasses.replace(CONFIG, block_position_encoding=False)
    positions = random_inputs(flat, 0, 2, None).position_ids
    assert positions is not None and positions.shape == (2, 12)
    inputs = random_inputs(RELATIVE, 0, 2, None)
    assert inputs.position_ids is None and inputs.tokens.shape == (2, 64)


def write_batch(path: Path, **changes: np.ndarray) -> Path:
    arrays = {
        "tokens": np.zeros((2, 5), int),
        "position_ids": np.zeros((2, 2, 5), int),
        "attention_mask": np.array([3, 4]),
    } | changes
    kept: Any = {name: array for name, array in arrays.items() if array is not None}
    np.savez(path, **kept)
    return path


def test_a_batch_is_read_as_it_is(tmp_path):
    mask = np.ones((1, 1, 5, 5), np.float32)
    inputs = read_inputs(write_batch(tmp_path / "batch.npz", attention_mask=mask), CONFIG)
    assert inputs.attention_mask.dtype == np.int64 and inputs.attention_mask.shape == mask.shape
    flat = dataclasses.replace(CONFIG, block_position_encoding=False)
    inputs = read_inputs(write_batch(tmp_path / "batch.npz"), flat)
    assert inputs.position_ids is not None and inputs.position_ids.shape == (2, 5)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"tokens": None}, "no array 'tokens'"),
        ({"position_ids": None}, "no array 'position_ids'"),
        ({"tokens": np.zeros(5, int)}, "tokens in .* has shape \\[5\\], expected \\[B, L\\]"),
        ({"tokens": np.zeros((2, 0), int)}, "tokens in .* has shape"),
        ({"tokens": np.zeros((2, 5))}, "tokens in .* is of float64"),
        ({"tokens": np.full((2, 5), 30)}, "holds 30; expected 0 to 29"),
        ({"tokens": np.full((2, 5), -1)}, "holds -1"),
        ({"position_ids": np.zeros((2, 5), int)}, "position_ids in .* has shape"),
        ({"position_ids": np.full((2, 2, 5), 13)}, "holds 13; expected 0 to 12"),
        ({"attention_mask": np.array([1, 2, 3])}, "attention_mask in .* has shape"),
        ({"attention_mask": np.ones((2, 1, 5, 6))}, "attention_mask in .* has shape"),
        ({"tokens": np.array([None])}, "no readable .npz"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(tmp_path, changes, complaint):
    with pytest.raises(UsageError, match=complaint) as error:
        read_inputs(write_batch(tmp_path / "batch.npz", **changes), CONFIG)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"text", b"\x93NUMPY"])
def test_a_file_that_is_no_batch_is_refused(tmp_path, content):
    (tmp_path / "batch.npz").write_bytes(content)
    with pytest.raises(UsageError, match=r"no readable \.npz file"):
        read_inputs(tmp_path / "batch.npz", CONFIG)
    np.save(tmp_path / "batch.npy", np.zeros(3))
    with pytest.raises(UsageError, match=r"no readable \.npz file"):
        read_inputs(tmp_path / "batch.npy", CONFIG)
