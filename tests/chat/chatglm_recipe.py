"""A ChatGLM of 4 million parameters with the real vocabulary, built from the golden's seed."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from glm_jax.chat.turns import Turn


def write_recipe(golden: dict[str, Any], shared: Path, folder: Path) -> Path:
    """A folder as the published one: config.json, weights and tokenizer."""
    recipe = golden["recipe"]
    random = np.random.RandomState(recipe["seed"])
    tensors: dict[str, np.ndarray] = {}
    for name, shape, dtype, mean, std in recipe["tensors"]:
        value = mean + std * random.standard_normal(shape)
        if name == "transformer.word_embeddings.weight":
            for start, end, factor in recipe["embedding_row_scale"]:
                value[start:end] *= factor
        tensors[name] = value.astype(dtype)
        assert hashlib.sha256(tensors[name].tobytes()).hexdigest() == recipe["sha256"][name]
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    sizes = {name: value for name, value in recipe["config"].items() if name != "seed"}
    config = {"model_type": "chatglm", "architectures": ["ChatGLMModel"], **sizes}
    config |= {"layernorm_epsilon": 1e-05, "position_encoding_2d": True, "torch_dtype": "float16"}
    (folder / "config.json").write_text(json.dumps(config))
    published = {"tokenizer_class": "ChatGLMTokenizer", "num_image_tokens": 0}
    (folder / "tokenizer_config.json").write_text(json.dumps(published))
    shutil.copyfile(shared / "vocabs" / "ice_text.model", folder / "ice_text.model")
    return folder


def turns(history: list[list[str]] | None) -> list[Turn]:
    """Recorded turns."""
    return [Turn(*turn) for turn in history or []]
