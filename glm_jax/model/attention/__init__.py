"""Attention over a fully visible prefix: one function per platform, chosen by name."""

from glm_jax.model.attention.choose import (
    ATTENTION_KINDS,
    Attention,
    attention_function,
    check_attention,
)
from glm_jax.model.attention.mask import memory_mask, prefix_mask

__all__ = [
    "ATTENTION_KINDS",
    "Attention",
    "attention_function",
    "check_attention",
    "memory_mask",
    "prefix_mask",
]
