"""The fields of config.json that follow from a network and its tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glm_jax.errors import UsageError
from glm_jax.model.config import GLMConfig
from glm_jax.tokenizer.glm_tokenizer import GLMTokenizer
from glm_jax.tokenizer.special import MASK_NAMES

TANH, ERF = "gelu_pytorch_tanh", "gelu"
PUBLISHED_EPSILON = 1e-5
_DROPOUT = {
    "embedding_dropout_prob": "embedding_dropout",
    "output_dropout_prob": "hidden_dropout",
    "attention_dropout_prob": "attention_dropout",
}
# What the classes of transformers can classify by, under the names of `TaskConfig.pool`.
POOL_TOKENS = ("cls", "pad")
_GENERATION = "modeling_glm.GLMForConditionalGeneration"
_CLASSES = {
    "AutoConfig": "configuration_glm.GLMConfig",
    "AutoModel": "modeling_glm.GLMModel",
    "AutoModelForCausalLM": _GENERATION,
    "AutoModelForSeq2SeqLM": _GENERATION,
    "AutoModelForSequenceClassification": "modeling_glm.GLMForSequenceClassification",
    "AutoModelForMultipleChoice": "modeling_glm.GLMForMultipleChoice",
}
# The published repository of each size: layers, hidden size and rows of the word embedding.
_REPOSITORIES = {
    (36, 2048, 50304): "THUDM/glm-2b",
    (48, 4096, 50304): "THUDM/glm-10b",
    (48, 4096, 50048): "THUDM/glm-10b-chinese",
    (24, 1024, 50048): "THUDM/glm-large-chinese",
    (24, 1024, 50304): "THUDM/glm-roberta-large",
}
_PUBLISHED_CLASSES = (
    "AutoConfig",
    "AutoModel",
    "AutoModelForSeq2SeqLM",
    "AutoModelForMultipleChoice",
)


def our_fields(config: GLMConfig, tokenizer: GLMTokenizer | None) -> dict[str, Any]:
    """The fields for the classes that travel with the folder."""
    return {
        "architectures": ["GLMForConditionalGeneration"],
        "auto_map": _CLASSES,
        "model_type": "glm",
        "hidden_act": TANH,
        "layernorm_epsilon": config.layernorm_epsilon,
        **_dropout(config),
        **token_fields(tokenizer),
    }


def head_fields(num_labels: int, pool_token: str) -> dict[str, Any]:
    """The fields that a classifier's head adds."""
    labels = [f"LABEL_{label}" for label in range(num_labels)]
    return {
        "architectures": ["GLMForSequenceClassification"],
        "pool_token": pool_token,
        "id2label": {str(label): name for label, name in enumerate(labels)},
        "label2id": {name: label for label, name in enumerate(labels)},
    }


def token_fields(tokenizer: GLMTokenizer | None) -> dict[str, Any]:
    """The ids that a network reads of the special tokens."""
    if tokenizer is None:
        return {}
    special = tokenizer.special
    return {
        "pad_token_id": special["pad"],
        "eos_token_id": special["eos"],
        "sop_token_id": special["sop"],
        "eop_token_id": special["eop"],
        "mask_token_ids": sorted({special[name] for name in MASK_NAMES if name in special}),
    }


def published_fields(config: GLMConfig, kept: Mapping[str, Any] | None) -> dict[str, Any]:
    """The fields for the code of the published repositories.

    Args:
      config: of the network.
      kept: the config.json that the weights came with, whose classes stay.

    Raises:
      UsageError: that code can't compute the network.
    """
    check_epsilon(config, "the published code; without --published it is written")
    if kept is not None and "auto_map" in kept:
        return _dropout(config)
    size = (config.num_layers, config.hidden_size, config.vocab_size)
    repository = _REPOSITORIES.get(size, "THUDM/glm-2b")
    classes = {name: f"{repository}--{_CLASSES[name]}" for name in _PUBLISHED_CLASSES}
    return {"auto_map": classes, **_dropout(config)}


def check_epsilon(config: Any, where: str) -> None:
    """Refuses a network whose LayerNorms others can't be given.

    Raises:
      UsageError: its epsilon is not the one that is fixed there.
    """
    if getattr(config, "layernorm_epsilon", PUBLISHED_EPSILON) != PUBLISHED_EPSILON:
        raise UsageError(
            f"the network's layernorm_epsilon is {config.layernorm_epsilon}, but it is always "
            f"{PUBLISHED_EPSILON} in {where}"
        )


def _dropout(config: GLMConfig) -> dict[str, float]:
    return {name: getattr(config, ours) for name, ours in _DROPOUT.items()}


def numerics(path: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `GLMConfig` that a config.json has besides the dimensions.

    Args:
      path: of the file, for messages.
      fields: its content.

    Raises:
      UsageError: a field is no number in its range, or the network has the other GELU.
    """
    if fields.get("hidden_act", TANH) != TANH:
        raise UsageError(
            f"{path} says hidden_act {str(fields['hidden_act'])[:80]!r}, but GLM's activation here "
            f"is {TANH}"
        )
    found = {}
    for name, ours in {**_DROPOUT, "layernorm_epsilon": "layernorm_epsilon"}.items():
        value = fields.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            raise UsageError(f"{path} says {name} {str(value)[:80]}, expected a number below 1")
        found[ours] = float(value)
    return found
