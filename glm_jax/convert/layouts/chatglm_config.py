"""The config.json of ChatGLM-6B's folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glm_jax.convert.dimensions import Dimensions
from glm_jax.convert.layouts.huggingface_config import CONFIG_FILE
from glm_jax.errors import UsageError
from glm_jax.validation import MAX_INTEGER

if TYPE_CHECKING:
    from glm_jax.model.chatglm_config import ChatGLMConfig

MODEL_TYPE = "chatglm"
# What a field means that config.json lacks: the value of the first release, of 150,528 ids.
OLD_VALUES: dict[str, Any] = {
    "vocab_size": 150528,
    "hidden_size": 4096,
    "num_layers": 28,
    "num_attention_heads": 32,
    "inner_hidden_size": 16384,
    "layernorm_epsilon": 1e-5,
    "max_sequence_length": 2048,
    "position_encoding_2d": True,
    "bos_token_id": 150004,
    "eos_token_id": 150005,
    "mask_token_id": 150000,
    "gmask_token_id": 150001,
    "pad_token_id": 0,
    "quantization_bit": 0,
    "quantization_embeddings": False,
    "pre_seq_len": None,
    "prefix_projection": False,
}
# What a new config.json has besides the dimensions: the published one's of 130,528 ids.
_NEW_VALUES: dict[str, Any] = {
    "architectures": ["ChatGLMModel"],
    "auto_map": {
        "AutoConfig": "configuration_chatglm.ChatGLMConfig",
        "AutoModel": "modeling_chatglm.ChatGLMForConditionalGeneration",
        "AutoModelForSeq2SeqLM": "modeling_chatglm.ChatGLMForConditionalGeneration",
    },
    "bos_token_id": 130004,
    "eos_token_id": 130005,
    "mask_token_id": 130000,
    "gmask_token_id": 130001,
    "pad_token_id": 3,
    "model_type": MODEL_TYPE,
    "torch_dtype": "float16",
    "use_cache": True,
}
_BITS = {"none": 0, "int8": 8, "int4": 4}
_COUNTS = (
    "vocab_size",
    "hidden_size",
    "num_layers",
    "num_attention_heads",
    "inner_hidden_size",
    "max_sequence_length",
)
# Fields that are left out of a new file where they have their old value.
_OPTIONAL = ("quantization_bit", "quantization_embeddings", "pre_seq_len", "prefix_projection")


def read_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that shape the network, those that are absent with their old values.

    Raises:
      UsageError: a field has a value that no network has.
    """
    fields = {name: config.get(name, value) for name, value in OLD_VALUES.items()}
    for name in _COUNTS:
        _check(name, fields[name], "a positive integer", 1)
    for name in ("quantization_bit", "pre_seq_len"):
        fields[name] = fields[name] or 0
        _check(name, fields[name], "an integer of at least 0", 0)
    for name in ("position_encoding_2d", "quantization_embeddings", "prefix_projection"):
        if not isinstance(fields[name], bool):
            raise _wrong(name, fields[name], "true or false")
    epsilon = fields["layernorm_epsilon"]
    if isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or not 0 < epsilon < 1:
        raise _wrong("layernorm_epsilon", epsilon, "a small positive number")
    return fields


def shown_fields(dimensions: Dimensions) -> dict[str, Any]:
    """The fields that the tensors show."""
    return {
        "vocab_size": dimensions.vocab_size,
        "num_layers": dimensions.num_layers,
        "hidden_size": dimensions.hidden_size,
        "inner_hidden_size": dimensions.inner_size or 4 * dimensions.hidden_size,
        "quantization_bit": _BITS[dimensions.quantization],
        "quantization_embeddings": dimensions.quantized_words,
        "pre_seq_len": dimensions.prefix_tokens,
        "prefix_projection": dimensions.prefix_projection,
    }


def check_chatglm_config(path: Path, config: Mapping[str, Any], dimensions: Dimensions) -> None:
    """Checks a config.json against the tensors.

    Raises:
      UsageError: a field contradicts the tensors, or has a value that no network has.
    """
    try:
        fields = read_fields(config)
    except UsageError as error:
        raise UsageError(f"{path} {error}") from error
    for name, shown in shown_fields(dimensions).items():
        if fields[name] == shown:
            continue
        if name == "prefix_projection" and not dimensions.prefix_tokens:
            continue
        if name in config:
            raise UsageError(
                f"{path} says {name} {json.dumps(config[name])[:80]}, but the tensors show {shown}"
            )
        raise UsageError(
            f"{path} has no {name}, which means {json.dumps(OLD_VALUES[name])} as in the first "
            f"release of ChatGLM-6B, but the tensors show {shown}"
        )
    for name in ("bos_token_id", "eos_token_id", "gmask_token_id"):
        token = fields[name]
        if isinstance(token, int) and 0 <= token < dimensions.vocab_size:
            continue
        said = f"says {name} {json.dumps(token)[:80]}"
        if name not in config:
            said = f"has no {name}, which means {token} as in the first release of ChatGLM-6B"
        raise UsageError(f"{path} {said}, but the vocabulary has {dimensions.vocab_size} ids")


def chatglm_config(
    dimensions: Dimensions, config: Mapping[str, Any], num_attention_heads: int | None
) -> ChatGLMConfig:
    """The configuration of the network.

    Args:
      dimensions: what the tensors show.
      config: config.json.
      num_attention_heads: H; None for what config.json says.

    Raises:
      UsageError: config.json has a value that no network has, or H does not fit.
    """
    from glm_jax.model.chatglm_config import ChatGLMConfig

    try:
        fields = read_fields(config)
    except UsageError as error:
        raise UsageError(f"{CONFIG_FILE} {error}") from error
    return ChatGLMConfig(
        vocab_size=dimensions.vocab_size,
        num_layers=dimensions.num_layers,
        hidden_size=dimensions.hidden_size,
        num_attention_heads=num_attention_heads or fields["num_attention_heads"],
        max_sequence_length=fields["max_sequence_length"],
        block_position_encoding=fields["position_encoding_2d"],
        layernorm_epsilon=fields["layernorm_epsilon"],
        quantization=dimensions.quantization,
        inner_size=dimensions.inner_size,
        num_prefix_tokens=dimensions.prefix_tokens,
        prefix_projection=dimensions.prefix_projection,
    )


def chatglm_config_fields(
    dimensions: Dimensions, num_attention_heads: int, kept: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The config.json to write: the one that the weights came with, or a new one, up to date."""
    fields = dict(_NEW_VALUES if kept is None else kept)
    shown = shown_fields(dimensions) | {"num_attention_heads": num_attention_heads}
    for name, value in shown.items():
        if name in fields or value != (OLD_VALUES[name] or 0) or name not in _OPTIONAL:
            fields[name] = None if name == "pre_seq_len" and not value else value
    if kept is None:
        unseen = ("layernorm_epsilon", "max_sequence_length", "position_encoding_2d")
        fields |= {name: OLD_VALUES[name] for name in unseen}
        return dict(sorted(fields.items()))
    return fields


def _check(name: str, value: object, expected: str, minimum: int) -> None:
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if not is_integer or not minimum <= value <= MAX_INTEGER:
        raise _wrong(name, value, expected)


def _wrong(name: str, value: object, expected: str) -> UsageError:
    return UsageError(f"says {name} {json.dumps(value)[:80]}, expected {expected}")
