"""One pass of a checkpoint's network over given inputs, every station kept."""

from __future__ import annotations

import dataclasses
import os
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from glm_jax.convert.load import load
from glm_jax.convert.weights import WeightSource
from glm_jax.model import GLM, GLMConfig, RelativeGLM, RelativeGLMConfig
from glm_jax.model.intermediates import apply_with_stream
from glm_jax.parity.inputs import Inputs

OURS, PYTORCH = "JAX", "PyTorch"


@dataclasses.dataclass(frozen=True)
class Stations:
    """What one network computes.

    Attributes:
      stream: the output of the embeddings, then that of every layer.
      hidden: output of the final LayerNorm.
      logits: for every position.
    """

    stream: Float[np.ndarray, "N+1 B L D"]
    hidden: Float[np.ndarray, "B L D"]
    logits: Float[np.ndarray, "B L V"]


def choose_engine(source: WeightSource, config: GLMConfig | RelativeGLMConfig) -> str:
    """What runs a checkpoint: PyTorch those that come from there, where torch is installed."""
    converted = source.kind != "native" and isinstance(config, GLMConfig)
    return PYTORCH if converted and find_spec("torch") else OURS


def run_engine(
    engine: str,
    source: WeightSource,
    config: GLMConfig | RelativeGLMConfig,
    inputs: Inputs,
    base: str | os.PathLike[str] | None = None,
    dtype: str = "float32",
) -> Stations:
    """Runs a checkpoint, with products of the full precision of float32, or of float64.

    Args:
      engine: from `choose_engine`.
      source: the open checkpoint.
      config: its dimensions.
      inputs: what to run it on.
      base: of a prefix.
      dtype: "float32" or "float64".
    """
    if engine == OURS:
        return run_ours(Path(source.path), config.num_attention_heads, inputs, base, dtype)
    from glm_jax.parity.torch_engine import run_torch

    assert isinstance(config, GLMConfig)
    return Stations(*run_torch(source, config, inputs, dtype))


def run_ours(
    path: Path,
    num_attention_heads: int,
    inputs: Inputs,
    base: str | os.PathLike[str] | None = None,
    dtype: str = "float32",
) -> Stations:
    """Runs a checkpoint with this package's own network."""
    model, params = load(path, num_attention_heads=num_attention_heads, base=base)
    mask = inputs.attention_mask
    prefix_length, full_mask = (mask, None) if mask.ndim == 1 else (np.zeros(1, np.int64), mask)
    positions = () if inputs.position_ids is None else (inputs.position_ids,)
    with jax.enable_x64(dtype == "float64"), jax.default_matmul_precision("highest"):
        model = model.clone(config=dataclasses.replace(model.config, compute_dtype=dtype))
        if dtype == "float64":
            params = jax.tree.map(_as_float64, params)
        stations = _forward(model, params, (inputs.tokens, *positions, prefix_length), full_mask)
    return Stations(*(np.asarray(array) for array in stations))


def _as_float64(leaf: jax.Array) -> np.ndarray:
    array = np.asarray(leaf)
    return array if array.dtype == np.int8 else array.astype(np.float64)


@partial(jax.jit, static_argnums=0)
def _forward(model: GLM | RelativeGLM, params: Any, inputs: tuple, full_mask: Any) -> tuple:
    hidden, stream = apply_with_stream(model, params, *inputs, attention_mask=full_mask)
    logits = model.apply({"params": params}, hidden, method="logits")
    return stream, hidden, jnp.asarray(logits)
