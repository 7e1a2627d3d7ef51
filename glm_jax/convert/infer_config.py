"""The configuration of a network from the shapes of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from glm_jax.convert.dimensions import Dimensions, measure
from glm_jax.convert.weights import TensorInfo
from glm_jax.errors import UsageError

if TYPE_CHECKING:
    from glm_jax.model.config import GLMConfig
    from glm_jax.model.relative import RelativeGLMConfig

# Width of an attention head in every published model of GLM.
PUBLISHED_HEAD_SIZE = 64


def infer_config(
    tensors: Mapping[str, TensorInfo],
    num_attention_heads: int | None = None,
    huggingface_config: Mapping[str, Any] | None = None,
) -> GLMConfig | RelativeGLMConfig:
    """The configuration of the network with these tensors.

    Args:
      tensors: by their original names, merged over ranks.
      num_attention_heads: H, which the shapes don't show; None for the hidden size / 64 of every
        published model of GLM, and what config.json says of ChatGLM.
      huggingface_config: config.json, where there is one; ChatGLM's tensors don't show all.

    Raises:
      UsageError: the tensors are not those of one network, or H doesn't go with them.
    """
    dimensions = measure(tensors, "the checkpoint", lambda _: "the checkpoint", rotary=True)
    if dimensions.rotary:
        from glm_jax.convert.layouts.chatglm_config import chatglm_config

        return chatglm_config(dimensions, huggingface_config or {}, num_attention_heads)
    heads = find_heads(dimensions, num_attention_heads)
    if dimensions.relative_heads is not None:
        from glm_jax.model.relative import RelativeGLMConfig

        return RelativeGLMConfig(
            vocab_size=dimensions.vocab_size,
            num_layers=dimensions.num_layers,
            hidden_size=dimensions.hidden_size,
            num_attention_heads=heads,
        )
    from glm_jax.convert.layouts.huggingface_fields import numerics
    from glm_jax.model.config import GLMConfig

    return GLMConfig(
        vocab_size=dimensions.vocab_size,
        num_layers=dimensions.num_layers,
        hidden_size=dimensions.hidden_size,
        num_attention_heads=heads,
        max_sequence_length=dimensions.max_sequence_length,
        block_position_encoding=dimensions.block_positions,
        quantization=dimensions.quantization,
        **numerics("config.json", huggingface_config or {}),
    )


def find_heads(dimensions: Dimensions, num_attention_heads: int | None) -> int:
    """The number of attention heads: the one that is shown or given, else hidden size / 64.

    Raises:
      UsageError: it doesn't divide the hidden size, or the tensors show another.
    """
    hidden_size, shown = dimensions.hidden_size, dimensions.relative_heads
    if num_attention_heads is None:
        if shown is None and hidden_size % PUBLISHED_HEAD_SIZE:
            raise UsageError(
                f"the checkpoint doesn't say how many attention heads it has, and its hidden size "
                f"of {hidden_size} is no multiple of {PUBLISHED_HEAD_SIZE}: give the number with "
                "--num_attention_heads"
            )
        return shown or hidden_size // PUBLISHED_HEAD_SIZE
    if num_attention_heads < 1 or hidden_size % num_attention_heads:
        raise UsageError(
            f"--num_attention_heads is {num_attention_heads}, which does not divide the "
            f"checkpoint's hidden size of {hidden_size}"
        )
    if shown not in (None, num_attention_heads):
        raise UsageError(
            f"--num_attention_heads is {num_attention_heads}, but the checkpoint has {shown} heads"
        )
    return num_attention_heads
