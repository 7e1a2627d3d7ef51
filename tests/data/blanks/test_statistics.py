"""Batches drawn from the recorded samples, against every recorded histogram of the original.

Each of the 94 histograms is compared by chi-square at p > 0.01, so with a fair sampler one
comparison in a hundred fails by chance. Seeds are fixed, so what has passed keeps passing; a new
seed, or another stream of random numbers, may need another one. Everything is read from batches, as
training gets them.
"""

import json

import numpy as np
import pytest

from glm_jax.data.blanks.config import BlankConfig
from glm_jax.data.blanks.span_lengths import span_length_distribution
from tests.conftest import SHARED
from tests.data.blanks.recorded_statistics import (
    SIGNIFICANCE,
    blocks,
    compare,
    configuration,
    draw,
)


@pytest.fixture(scope="module")
def statistics(shared):
    return json.loads((shared / "goldens" / "d_blocks" / "statistics.json").read_text())


@pytest.fixture(scope="module")
def samples(shared):
    recorded = json.loads((shared / "goldens" / "d_blocks" / "stats_samples.json").read_text())
    return {
        name: np.array([sample["text"] for sample in texts]) for name, texts in recorded.items()
    }


def runs():
    path = SHARED / "goldens" / "d_blocks" / "statistics.json"
    recorded = json.loads(path.read_text()) if path.exists() else {}
    return [name for name, run in recorded.items() if "settings" in run] or ["bert/one_doc"]


@pytest.mark.parametrize("name", runs())
def test_recorded_histograms(statistics, samples, special, sentence_end, name):
    run = statistics[name]
    config = configuration(run["settings"])
    agreements = compare(run, samples[run["samples"]], special, sentence_end, config)
    assert len(agreements) >= 3
    assert all(p > SIGNIFICANCE for p in agreements.values()), agreements


def test_other_settings_are_told_apart(statistics, samples, special, sentence_end):
    """What the comparisons can see: span lengths with a mean of 3.1 in place of 3."""
    run = statistics["bert/one_doc"]
    config = BlankConfig(mean_span_length=3.1)
    agreements = compare(run, samples["one_doc"], special, sentence_end, config)
    assert agreements["span_length"] < 1e-4


def test_masked_fraction(statistics, samples, special, sentence_end):
    run = statistics["bert/multi_doc"]
    batch = draw(np.tile(samples["multi_doc"], (100, 1)), BlankConfig(), special, sentence_end, 0)
    _, length, _ = blocks(batch)
    fraction = length.sum() / (len(batch["tokens"]) * samples["multi_doc"].shape[1])
    assert fraction == pytest.approx(run["mean_masked_fraction"], rel=0.01)


def test_span_length_table(statistics):
    recorded = np.array(statistics["block_length_distribution_avg3_max40"])
    ours = span_length_distribution(3, 40)
    np.testing.assert_allclose(ours, recorded / recorded.sum(), rtol=1e-9)
