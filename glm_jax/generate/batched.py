"""Many prompts at a time: samples, or the hypotheses of beam search."""

from __future__ import annotations

from collections.abc import Sequence

from glm_jax.generate.beam_engine import FoundBlank, beam_search
from glm_jax.generate.decoder import Decoder, power_of_two
from glm_jax.generate.engine import ActiveFill, fill_all
from glm_jax.generate.prompt import Prompt
from glm_jax.generate.settings import Sampling

ROWS_AT_ONCE = 16


def draw(decoder: Decoder, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[ActiveFill]]:
    """All samples of every text."""
    fills = [
        [ActiveFill(prompt, sampling, number) for number in range(sampling.samples)]
        for prompt in prompts
    ]
    together = [active for samples in fills for active in samples]
    fill_all(decoder, together, min(ROWS_AT_ONCE, power_of_two(len(together))))
    return fills


def search(
    decoder: Decoder, prompts: Sequence[Prompt], sampling: Sampling
) -> list[list[list[FoundBlank]]]:
    """The hypotheses of beam search for every blank of every text."""
    at_once = max(1, ROWS_AT_ONCE // sampling.beams)
    num_texts = min(power_of_two(at_once + 1) // 2, power_of_two(len(prompts)))
    return beam_search(decoder, prompts, sampling, num_texts=num_texts)
