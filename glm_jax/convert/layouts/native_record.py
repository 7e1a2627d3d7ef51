"""What our checkpoints record of the weights that a conversion put into them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from glm_jax.convert.infer_config import infer_config
from glm_jax.convert.tensors import DTYPES
from glm_jax.convert.weights import SourceMetadata, TensorInfo
from glm_jax.errors import UsageError
from glm_jax.model.chatglm_config import ChatGLMConfig
from glm_jax.model.config import GLMConfig
from glm_jax.model.relative import RelativeGLMConfig

WEIGHTS = "weights"


def weights_record(
    metadata: SourceMetadata, dtypes: Mapping[str, np.dtype], checksums: Mapping[str, int]
) -> dict[str, Any]:
    """What is recorded besides the model's configuration, as JSON values.

    Args:
      metadata: what the source said.
      dtypes: of the tensors that aren't stored with the dtype they had.
      checksums: CRC-32 of every tensor as the source had it.
    """
    return {
        WEIGHTS: {
            "iteration": metadata.iteration,
            "name_prefix": metadata.name_prefix,
            "huggingface_config": metadata.huggingface_config,
            "omitted": list(metadata.omitted),
            "dtypes": {name: dtype.name for name, dtype in dtypes.items()},
            "checksums": dict(checksums),
        }
    }


DIMENSIONS = (
    "vocab_size",
    "num_layers",
    "hidden_size",
    "mlp_size",
    "max_sequence_length",
    "block_position_encoding",
    "quantization",
    "num_prefix_tokens",
    "prefix_projection",
)
# What rotary positions leave no trace of in the tensors.
_NOT_SHOWN = ("max_sequence_length", "block_position_encoding")


def model_config(
    record: Mapping[str, Any], tensors: Mapping[str, TensorInfo], step_folder: epath.Path
) -> GLMConfig | RelativeGLMConfig:
    """The configuration of the model in a checkpoint.

    Args:
      record: the checkpoint's.
      tensors: what the checkpoint holds, by original names.
      step_folder: for messages.

    Raises:
      UsageError: the record doesn't describe a model, or another one than the tensors show.
    """
    try:
        fields = record["configuration"]["model"]
        recorded = _variant(fields)(**fields)
    except (KeyError, TypeError) as error:
        raise UsageError(
            f"the record of checkpoint {step_folder} does not describe a model: {error}"
        ) from error
    shown = infer_config(tensors, recorded.num_attention_heads)
    hidden = _NOT_SHOWN if isinstance(recorded, ChatGLMConfig) else ()
    for name in DIMENSIONS:
        if name in hidden:
            continue
        if getattr(recorded, name, None) != getattr(shown, name, None):
            raise UsageError(
                f"the record of checkpoint {step_folder} says model.{name} = "
                f"{getattr(recorded, name, None)}, but its parameters show "
                f"{getattr(shown, name, None)}"
            )
    return recorded


def _variant(fields: Mapping[str, Any]) -> type[GLMConfig | RelativeGLMConfig]:
    """The configuration's class, by a field that only it has."""
    if "rotary_precision" in fields:
        return ChatGLMConfig
    return GLMConfig if "max_sequence_length" in fields else RelativeGLMConfig


def read_metadata(record: Mapping[str, Any], step_folder: epath.Path) -> SourceMetadata:
    """The metadata of the weights in a checkpoint; a training run records heads and step only.

    Raises:
      UsageError: the record has other types there.
    """
    try:
        model = record["configuration"]["model"]
        weights = record.get(WEIGHTS, {"iteration": record["step"]})
        metadata = SourceMetadata(
            num_attention_heads=model["num_attention_heads"],
            iteration=weights["iteration"],
            name_prefix=weights.get("name_prefix", ""),
            huggingface_config=weights.get("huggingface_config"),
            omitted=tuple(weights.get("omitted", ())),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"the record of checkpoint {step_folder} lacks {error}") from error
    expected = (
        (metadata.num_attention_heads, int),
        (metadata.iteration, int | None),
        (metadata.name_prefix, str),
        (metadata.huggingface_config, dict | None),
    )
    for value, kind in expected:
        if not isinstance(value, kind):
            raise UsageError(
                f"the record of checkpoint {step_folder} has {value!r} where {kind} is expected"
            )
    return metadata


def stored_dtypes(record: Mapping[str, Any], step_folder: epath.Path) -> dict[str, np.dtype]:
    """The dtypes that the tensors had before they were stacked, by their original names.

    Raises:
      UsageError: the record names none.
    """
    dtypes = record.get(WEIGHTS, {}).get("dtypes", {})
    try:
        return {name: DTYPES[dtype] for name, dtype in dtypes.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"the record of checkpoint {step_folder} has unknown dtypes of tensors: {error}"
        ) from error


def recorded_checksums(record: Mapping[str, Any], step_folder: epath.Path) -> dict[str, int]:
    """CRC-32 of the tensors by their original names; a training run records none.

    Raises:
      UsageError: the record has something else there.
    """
    checksums = record.get(WEIGHTS, {}).get("checksums", {})
    if not isinstance(checksums, dict) or not all(isinstance(n, int) for n in checksums.values()):
        raise UsageError(f"the record of checkpoint {step_folder} has no usable checksums")
    return checksums
