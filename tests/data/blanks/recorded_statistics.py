"""Histograms of batches drawn from the recorded samples, beside those of `statistics.json`."""

from __future__ import annotations

from collections import Counter

import numpy as np
import tensorflow as tf
from scipy.stats import chi2_contingency

from glm_jax.data.batches.batch import make_batch
from glm_jax.data.blanks.config import BlankConfig, Objective
from glm_jax.data.blanks.objectives import draw_objectives

SAMPLES = 24_000
AT_ONCE = 4_000
SIGNIFICANCE = 0.01
SEED = 3

OURS = {
    "bert_prob": "token",
    "gap_sentence_prob": "sentence",
    "bert_ratio": "mask_ratio",
    "gap_sentence_ratio": "sentence_mask_ratio",
    "average_block_length": "mean_span_length",
    "max_block_length": "max_span_length",
    "gpt_min_ratio": "minimum_document_ratio",
    "gpt_infill_prob": "unidirectional_probability",
    "block_mask_prob": "block_mask_probability",
    "single_span_prob": "single_span_probability",
    "task_mask": "task_masks",
    "shuffle_blocks": "shuffle_blocks",
    "context_mask_ratio": "context_mask_ratio",
    "context_mask_range": "context_mask_range",
}
MODES = {"bert": Objective.TOKEN, "sentence": Objective.SENTENCE, "gpt": Objective.DOCUMENT}


def configuration(recorded):
    """Our settings for the recorded arguments; what neither token nor sentence is is document."""
    values = {OURS[name]: value for name, value in recorded.items()}
    document = round(1 - values.get("token", 0) - values.get("sentence", 0), 9)
    return BlankConfig(**{"document": document, **values})


def agreement(recorded, ours):
    """The p-value of two histograms having one distribution; rare values are put together."""
    values = sorted(set(recorded) | set(ours))
    table = np.array([[recorded.get(v, 0), ours.get(v, 0)] for v in values], float).T
    share = table.sum(axis=1).min() / table.sum()
    columns, gathered = [], np.zeros(2)
    for column in table.T:
        gathered = gathered + column
        if gathered.sum() * share >= 8:
            columns.append(gathered)
            gathered = np.zeros(2)
    columns[-1] = columns[-1] + gathered
    if len(columns) == 1:  # one value only, on both sides
        return 1.0
    return float(chi2_contingency(np.array(columns).T).pvalue)


def draw(texts, config, special, sentence_end, first):
    """A batch of texts that have room for all their blanks, as numpy arrays."""
    width = texts.shape[1]
    example = tf.range(first, first + len(texts), dtype=tf.int64)
    objective, single_span = draw_objectives(example, config, SEED)
    batch = make_batch(
        tf.constant(texts, tf.int32), tf.fill([len(texts)], width), example, objective, single_span,
        config=config, special=special, sentence_end=sentence_end,
        sequence_length=width + 80, seed=SEED,
    )  # fmt: skip
    return {name: values.numpy() for name, values in batch.items()}


def blocks(batch):
    """The row, length and place of the mask of every block, in the order of the sequences."""
    block_position = batch["position_ids"][:, 1]
    row, column = np.nonzero(block_position == 1)
    end = np.array([np.max(np.flatnonzero(used), initial=-1) + 1 for used in block_position > 0])
    following = np.append(column[1:], 0)
    is_last = np.append(row[1:] != row[:-1], True)
    length = np.where(is_last, end[row], following) - column - 1
    return row, length, batch["position_ids"][row, 0, column]


def histograms(batch, width, special):
    """The histograms of statistics.json of token and sentence examples, by name."""
    row, length, mask = blocks(batch)
    kept = np.flatnonzero(batch["objective"] != Objective.DOCUMENT)
    kept = kept[np.isin(kept, row)]
    if not len(kept):
        return {}
    inside = np.isin(row, kept)
    row, length, mask = row[inside], length[inside], mask[inside]
    first = np.append(True, row[1:] != row[:-1])
    order = np.lexsort([mask, row])
    row, length, mask = row[order], length[order], mask[order]
    begins = np.append(True, row[1:] != row[:-1])  # of examples, as spans follow in the text
    number = np.arange(len(row)) - np.flatnonzero(begins)[np.cumsum(begins) - 1]
    before = np.cumsum(length - 1) - (length - 1)
    start = mask + before - before[np.flatnonzero(begins)][np.cumsum(begins) - 1]
    end = start + length
    ends = np.append(begins[1:], True)
    entries = {
        "span_length": length,
        "span_start": start,
        "gap_between": (start[1:] - end[:-1])[~begins[1:]],
        "gap_first": start[begins],
        "gap_last": width - end[ends],
        "num_spans": number[ends] + 1,
        "masked_tokens": np.bincount(row, length, len(batch["tokens"]))[kept],
        "target_tokens": batch["loss_mask"].sum(axis=1)[kept],
        "index_of_first_block": number[first[order]],
        "dblock": (batch["tokens"] == special["dBLOCK"]).sum(axis=1)[kept],
    }
    return {name: Counter(map(int, values)) for name, values in entries.items()}


def recorded_histogram(run, name, calls_per_count=1):
    return {int(value): count / calls_per_count for value, count in run[name].items()}


def compare(run, texts, special, sentence_end, config):
    """The p-values of all histograms of a run, by name."""
    width, found, tails = texts.shape[1], {}, []
    for first in range(0, SAMPLES, AT_ONCE):
        rows = (first + np.arange(AT_ONCE)) % len(texts)
        batch = draw(texts[rows], config, special, sentence_end, first)
        document = batch["objective"] == Objective.DOCUMENT
        drawn = histograms(batch, width, special)
        drawn["generation_length"] = Counter(
            (width - batch["prefix_length"] + 1)[document].tolist()
        )
        drawn["mode"] = Counter(batch["objective"].tolist())
        tails += (~(batch["targets"] == special["eop"]).any(axis=1))[document].tolist()
        for name, values in drawn.items():
            found[name] = found.get(name, Counter()) + values
    # A call of the original has four samples and one length for all of them.
    calls = np.array(tails[: len(tails) // 4 * 4], int).reshape(-1, 4).sum(axis=1)
    modes = {int(MODES[mode]): calls for mode, calls in run["modes_per_call"].items()}
    pairs = {"mode": (modes, found.pop("mode"))}
    pairs["tails"] = (
        recorded_histogram(run, "gpt_unidirectional_samples_per_call_hist"),
        Counter(calls.tolist()),
    )
    pairs |= {
        name: (recorded_histogram(run, f"{name}_hist", 4 if "generation" in name else 1), values)
        for name, values in found.items()
    }
    return {name: agreement(*pair) for name, pair in pairs.items() if pair[0]}
