"""Batches of a run that learns to write texts, without its data, to compile its step for."""

from __future__ import annotations

import numpy as np
from jaxtyping import Shaped

from glm_jax.seq2seq.config import Seq2SeqRunConfig


def placeholder_pairs(config: Seq2SeqRunConfig) -> dict[str, Shaped[np.ndarray, "B ..."]]:
    """A batch of full-length rows, as `EncodedPairs.batch` makes them.

    Args:
      config: of the run; its data and weights are not read.
    """
    settings, size = config.seq2seq, config.finetune.batch_size
    length = settings.source_length + settings.target_length
    learnt = np.arange(length) >= settings.source_length
    return {
        "tokens": np.zeros((size, length), np.int32),
        "targets": np.zeros((size, length), np.int32),
        "loss_mask": np.tile(learnt.astype(np.float32), (size, 1)),
        "position_ids": np.zeros((size, 2, length), np.int32),
        "prefix_length": np.full(size, settings.source_length, np.int32),
    }
