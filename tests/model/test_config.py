"""The network's configuration refuses what cannot work, in one sentence."""

from __future__ import annotations

from typing import Any

import pytest

from glm_jax.errors import UsageError
from glm_jax.model import GLMConfig

VALID: dict[str, Any] = {
    "vocab_size": 128,
    "num_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "max_sequence_length": 16,
}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vocab_size", 0),
        ("num_layers", -1),
        ("hidden_size", 2.5),
        ("num_attention_heads", True),
        ("max_sequence_length", "512"),
        ("num_attention_heads", 5),
        ("embedding_dropout", 1.0),
        ("hidden_dropout", -0.1),
        ("attention_dropout", "0.1"),
        ("layernorm_epsilon", 0.0),
        ("block_position_encoding", "no"),
        ("compute_dtype", "float16"),
        ("remat", "some"),
        ("scan_layers", "no"),
    ],
)
def test_an_impossible_value_is_named_with_its_field(field, value):
    with pytest.raises(UsageError) as error:
        GLMConfig(**(VALID | {field: value}))
    assert f"model.{field}" in str(error.value)
    assert str(value) in str(error.value)
    assert "\n" not in str(error.value)


def test_derived_sizes():
    config = GLMConfig(**VALID)
    assert (config.head_size, config.mlp_size) == (8, 128)
