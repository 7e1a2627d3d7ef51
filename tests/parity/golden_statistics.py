"""What the original's sampler drew of many samples, beside what ours draws of the same."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from glm_jax.data.blanks.config import BlankConfig
from glm_jax.data.blanks.span_lengths import span_length_distribution
from tests.data.blanks.recorded_blocks import special_tokens
from tests.data.blanks.recorded_statistics import (
    SIGNIFICANCE,
    blocks,
    compare,
    configuration,
    draw,
)
from tests.parity.golden_exact import SENTENCE_ENDS
from tests.parity.rows import Row, guarded, largest, relative

SENTENCE_END = np.isin(np.arange(1024), SENTENCE_ENDS)
LENGTHS = "block_length_distribution_avg3_max40"


def statistics_rows(goldens: Path) -> Iterator[Row]:
    """A row for all histograms of a run: the most improbable of them by chi-square."""
    folder = goldens / "d_blocks"

    def rows() -> Iterator[Row]:
        recorded = json.loads((folder / "statistics.json").read_text())
        special = special_tokens(folder, {})
        texts = {
            name: np.array([sample["text"] for sample in samples])
            for name, samples in json.loads((folder / "stats_samples.json").read_text()).items()
        }
        lengths = np.array(recorded[LENGTHS])
        difference = relative(span_length_distribution(3, 40), lengths / lengths.sum())
        golden = "d_blocks/statistics"
        yield Row(golden, "distribution of span lengths (relative)", 1e-9, difference)
        run = recorded["bert/multi_doc"]
        fraction = masked_fraction(texts[run["samples"]], special)
        difference = relative(fraction, run["mean_masked_fraction"])
        yield Row(golden, "masked fraction of the tokens (relative)", 0.01, difference)
        for name, run in recorded.items():
            if name != LENGTHS:
                make = partial(run_rows, f"{golden}/{name}", run, texts[run["samples"]], special)
                yield from guarded(f"{golden}/{name}", make)

    yield from guarded("d_blocks/statistics", rows)


def run_rows(
    golden: str, run: Mapping[str, Any], texts: np.ndarray, special: Mapping[str, int]
) -> Iterator[Row]:
    """The row of one run."""
    found = compare(run, texts, special, SENTENCE_END, configuration(run["settings"]))
    # A probability that is not a number must not get lost in a minimum.
    difference = largest(1.0 - p_value for p_value in found.values())
    quantity = f"1 - the smallest p-value of {len(found)} histograms"
    yield Row(golden, quantity, 1.0 - SIGNIFICANCE, difference)


def masked_fraction(texts: np.ndarray, special: Mapping[str, int]) -> float:
    """The fraction of the tokens that become blanks, at the default settings."""
    batch = draw(np.tile(texts, (100, 1)), BlankConfig(), special, SENTENCE_END, 0)
    _, length, _ = blocks(batch)
    return length.sum() / (len(batch["tokens"]) * texts.shape[1])
