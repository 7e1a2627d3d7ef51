"""What a change of a checkpoint's weights costs on a text."""

from __future__ import annotations

import os
from collections.abc import Mapping

from etils import epath

from glm_jax.finetune.config import TokenizerConfig
from glm_jax.language_model.config import LanguageModelConfig, LanguageModelRunConfig
from glm_jax.language_model.evaluate import evaluate_language_model
from glm_jax.parallel.mesh import MeshConfig


def score_text(
    checkpoint: str | os.PathLike[str], text: str, num_attention_heads: int | None = None
) -> Mapping[str, float]:
    """The metrics of the task `language_model` of a checkpoint.

    Args:
      checkpoint: anything that `glm_jax.load` opens, with its tokenizer.
      text: a file with a document in every line.
      num_attention_heads: of a checkpoint that doesn't record it.

    Raises:
      UsageError: the file, the tokenizer or the network does not fit.
    """
    settings = LanguageModelConfig(
        "language_model", text, num_attention_heads=num_attention_heads or 0
    )
    config = LanguageModelRunConfig(MeshConfig(), TokenizerConfig(), settings)
    return evaluate_language_model(config, epath.Path(checkpoint)).metrics


def cost_line(before: Mapping[str, float], after: Mapping[str, float], text: str) -> str:
    """One sentence about the metrics before and after a change."""
    first, second = (metrics["token_perplexity"] for metrics in (before, after))
    return (
        f"perplexity of a token {first:.5g} before and {second:.5g} after "
        f"({100 * (second / first - 1):+.2f}%), on {int(before['num_tokens']):,} tokens of {text}"
    )
