"""The config.json of a Hugging Face folder of the `glm-*` family."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glm_jax.convert.dimensions import WORD_EMBEDDING, Dimensions
from glm_jax.convert.formats.binary_file import ByteFile
from glm_jax.convert.weights import TensorInfo
from glm_jax.errors import RunError, UsageError

CONFIG_FILE = "config.json"
GLM_MODEL_TYPE = "glm"
_MAX_JSON_BYTES = 16 << 20

_AUTO_CLASSES = {
    "AutoConfig": "configuration_glm.GLMConfig",
    "AutoModel": "modeling_glm.GLMModel",
    "AutoModelForSeq2SeqLM": "modeling_glm.GLMForConditionalGeneration",
    "AutoModelForMultipleChoice": "modeling_glm.GLMForMultipleChoice",
}

# What config.json has besides the dimensions in the published models.
_CONSTANTS: dict[str, Any] = {
    "architectures": ["GLMModel"],
    "attention_dropout_prob": 0.1,
    "attention_scale": 1.0,
    "auto_map": _AUTO_CLASSES,
    "checkpoint_activations": False,
    "checkpoint_num_layers": 1,
    "embedding_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "model_type": GLM_MODEL_TYPE,
    "output_dropout_prob": 0.1,
    "output_predict": True,
    "parallel_output": True,
    "pool_token": "cls",
    "spell_func": "lstm",
    "spell_length": None,
}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
      UsageError: it can't be read, or holds something else.
    """
    file = ByteFile(path)
    text = file.read(0, _MAX_JSON_BYTES + 1)
    file.close()
    try:
        value = json.loads(text) if len(text) <= _MAX_JSON_BYTES else None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path} holds something else than a JSON object of moderate size")
    return value


def write_config(folder: Path, fields: Mapping[str, Any]) -> None:
    """Writes config.json.

    Raises:
      RunError: the disk failed.
    """
    try:
        (folder / CONFIG_FILE).write_text(json.dumps(fields, indent=2) + "\n")
    except OSError as error:
        raise RunError(f"{folder} can't be written: {error.strerror}") from error


def dimension_fields(dimensions: Dimensions) -> dict[str, Any]:
    """The fields that the tensors show."""
    fields = {
        "vocab_size": dimensions.vocab_size,
        "num_layers": dimensions.num_layers,
        "hidden_size": dimensions.hidden_size,
        "block_position_encoding": dimensions.block_positions,
        "relative_encoding": dimensions.relative_heads is not None,
    }
    if dimensions.relative_heads is None:
        fields["max_sequence_length"] = dimensions.max_sequence_length
    return fields


def check_config(path: Path, config: Mapping[str, Any], dimensions: Dimensions) -> int | None:
    """Checks a config.json against the tensors; returns the number of heads if it is there.

    Raises:
      UsageError: a field contradicts the tensors, or the number of heads can't be one.
    """
    for name, shown in dimension_fields(dimensions).items():
        if name in config and config[name] != shown:
            raise UsageError(
                f"{path} says {name} {json.dumps(config[name])[:80]}, but the tensors show {shown}"
            )
    heads = config.get("num_attention_heads")
    if heads is None:
        return dimensions.relative_heads
    if not isinstance(heads, int) or isinstance(heads, bool) or heads < 1:
        raise UsageError(
            f"{path} says num_attention_heads {json.dumps(heads)[:80]}, expected a positive integer"
        )
    if dimensions.hidden_size % heads or dimensions.relative_heads not in (None, heads):
        raise UsageError(
            f"{path} says num_attention_heads {heads}, which does not go with the tensors' hidden "
            f"size of {dimensions.hidden_size}"
        )
    return heads


def config_fields(
    dimensions: Dimensions,
    tensors: Mapping[str, TensorInfo],
    num_attention_heads: int,
    kept: Mapping[str, Any] | None,
    changed: Mapping[str, Any],
) -> dict[str, Any]:
    """The config.json to write: the one that the weights came with, or a new one, up to date.

    Args:
      dimensions, tensors, num_attention_heads: of the network.
      kept: the config.json that the weights came with.
      changed: fields that replace those of either.
    """
    fields = dict(_CONSTANTS if kept is None else kept) | dict(changed)
    fields |= dimension_fields(dimensions)
    fields["num_attention_heads"] = num_attention_heads
    dtype_field = "dtype" if "dtype" in fields else "torch_dtype"
    fields[dtype_field] = tensors[WORD_EMBEDDING].dtype.name
    return fields if kept is not None else dict(sorted(fields.items()))
