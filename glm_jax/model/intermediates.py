"""The residual stream of one pass: what every layer takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


def residual_stream(intermediates: Mapping[str, Any]) -> Float[Array, "states B L D"]:
    """The output of the embeddings, then that of every layer.

    Entry i is the input of layer i, what the original returns as `mem_i`; the last entry is the
    output of the last layer before the final LayerNorm.

    Args:
      intermediates: the collection "intermediates" of one pass through GLM, RelativeGLM or
        DecodingGLM.
    """
    (embedding,) = intermediates["embedding"]
    if "layers" in intermediates:
        (outputs,) = intermediates["layers"]["output"]
        return jnp.concatenate([embedding[None], outputs])
    blocks = len(intermediates) - 1
    outputs = [intermediates[f"blocks_{number}"]["output"][0] for number in range(blocks)]
    return jnp.stack([embedding, *outputs])


def apply_with_stream(
    model: nn.Module, params: PyTree, *inputs: Any, method: str = "hidden_states", **named: Any
) -> tuple[Any, Float[Array, "states B L D"]]:
    """What `method` returns for these inputs, and the residual stream of the pass."""
    result, recorded = model.apply(
        {"params": params}, *inputs, method=method, mutable="intermediates", **named
    )
    return result, residual_stream(recorded["intermediates"])
