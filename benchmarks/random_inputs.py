"""Random inputs of measurements: batches to train on, and texts to fill."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np

# The share of positions that token blanks mask, and the room that the loss leaves for them.
TARGET_SHARE, TARGET_FRACTION = 0.15, 0.25


class FillSeconds(NamedTuple):
    """Seconds until the first token, and for the others."""

    first: float
    rest: float


def training_rows(
    batch_size: int, length: int, vocab_size: int, target_share: float
) -> dict[str, np.ndarray]:
    """A batch in the form of contract C1 whose last positions have targets."""
    tokens = draw_tokens(batch_size, length, vocab_size)
    prefix = length - round(target_share * length)
    return {
        "tokens": tokens,
        "targets": np.roll(tokens, -1, axis=1),
        "loss_mask": np.tile(np.arange(length) >= prefix, (batch_size, 1)).astype(np.float32),
        "position_ids": np.tile(
            np.stack([np.arange(length), np.zeros(length)]), (batch_size, 1, 1)
        ).astype(np.int32),
        "prefix_length": np.full(batch_size, prefix, np.int32),
        "objective": np.zeros(batch_size, np.int32),
    }


def draw_tokens(batch_size: int, length: int, vocab_size: int) -> np.ndarray:
    """Tokens, int32 [B, L]."""
    return np.random.default_rng(0).integers(0, vocab_size, (batch_size, length), np.int32)


def random_decoder(model: Any, params: Any) -> Any:
    """A decoder of a GLM whose blanks never end by themselves."""
    from glm_jax.generate.decoder import make_decoder

    never = model.config.vocab_size
    return make_decoder(model, params, {"sop": 1, "never": never}, ends=("never",))


def timed_fill(
    decoder: Any, random: np.random.Generator, batch_size: int, prompt: int, tokens: int
) -> FillSeconds:
    """Fills a blank in the middle of each of some random texts, with a number of tokens."""
    from glm_jax.generate.engine import ActiveFill, Engine, slots_needed
    from glm_jax.generate.prompt import Prompt
    from glm_jax.generate.settings import Sampling

    vocab_size = decoder.model.config.vocab_size
    sampling = Sampling(max_blank_length=tokens)
    fills = [
        ActiveFill(Prompt(random.integers(2, vocab_size, prompt).tolist(), [prompt // 2]), sampling)
        for _ in range(batch_size)
    ]
    num_slots = max(slots_needed(active.prompt, tokens) for active in fills)
    engine = Engine(decoder, num_rows=batch_size, num_slots=num_slots)
    started = time.perf_counter()
    for active in fills:
        engine.start([active])
    engine.advance(1)
    first = time.perf_counter()
    while engine.num_active:
        engine.advance()
    assert all(len(active.blanks[0].ids) == tokens for active in fills)
    return FillSeconds(first - started, time.perf_counter() - first)
