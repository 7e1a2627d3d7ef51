"""Between the names of ChatGLM-6B's files and those that conversions use.

Conversions call a tensor what the original GLM calls its counterpart, with query, key and value as
thirds of one matrix. ChatGLM's files put "transformer." before the word embedding, too, have it a
second time as `lm_head.weight`, hold the constant frequencies of rotary positions, interleave
query, key and value by heads, and hold the prefixes of all layers in one tensor.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from glm_jax.convert.dimensions import PREFIX_EMBEDDING, PREFIX_ENCODER
from glm_jax.convert.layouts.state_dict import without_wrappers
from glm_jax.convert.names import SCALE, find
from glm_jax.model.rotary import BASE

FILE_PREFIX = "transformer."
LM_HEAD = "lm_head."
INVERSE_FREQUENCY = ".attention.rotary_emb.inv_freq"
_WORDS = "word_embeddings."
_FUSED = ".attention.query_key_value."
# The tensors of a file that hold the prefixes of all layers, with what one layer's is called.
OWN_PREFIXES = (PREFIX_EMBEDDING, "attention.prefix.weight")
PROJECTIONS = (
    (f"{PREFIX_ENCODER}.trans.2.weight", "attention.prefix_projection.weight"),
    (f"{PREFIX_ENCODER}.trans.2.bias", "attention.prefix_projection.bias"),
)


def file_name(name: str) -> str:
    """What files call a tensor that is one of its own in them."""
    return FILE_PREFIX + name if name.startswith(_WORDS) else name


def plain_name(stored: str) -> str | None:
    """What conversions call a tensor of a file; None for one that ChatGLM doesn't have."""
    name = ".".join(without_wrappers(stored))
    if name.startswith(FILE_PREFIX + _WORDS):
        name = name.removeprefix(FILE_PREFIX)
    elif name.startswith(_WORDS):
        return None
    return name if find(name) or is_repeated(name) or name in dict(PROJECTIONS) else None


def is_repeated(name: str) -> bool:
    """Whether a tensor of a file has nothing that others of the network don't have."""
    return name.endswith(INVERSE_FREQUENCY) or name in (f"{LM_HEAD}weight", f"{LM_HEAD}{SCALE}")


def is_chatglm(stored: Iterable[str]) -> bool:
    """Whether the tensors with these names are ChatGLM's."""
    plain = {name for name in map(plain_name, stored) if name}
    return any(
        name.startswith(PREFIX_ENCODER) or name.endswith(INVERSE_FREQUENCY) for name in plain
    ) or any(".".join(without_wrappers(name)).startswith(FILE_PREFIX + _WORDS) for name in stored)


def is_fused(name: str) -> bool:
    """Whether a tensor's rows are those of query, key and value."""
    return _FUSED in name


def to_thirds(tensor: np.ndarray, num_heads: int) -> np.ndarray:
    """[H, 3, K] rows as [3, H, K] rows."""
    return np.swapaxes(tensor.reshape(num_heads, 3, -1, *tensor.shape[1:]), 0, 1).reshape(
        tensor.shape
    )


def to_heads(tensor: np.ndarray, num_heads: int) -> np.ndarray:
    """[3, H, K] rows as [H, 3, K] rows."""
    return np.swapaxes(tensor.reshape(3, num_heads, -1, *tensor.shape[1:]), 0, 1).reshape(
        tensor.shape
    )


def inverse_frequency(head_size: int, *, two_dimensional: bool) -> np.ndarray:
    """The constant that files have in every layer."""
    size = head_size // 2 if two_dimensional else head_size
    exponents = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
    return (1.0 / np.float32(BASE) ** exponents).astype(np.float16)
