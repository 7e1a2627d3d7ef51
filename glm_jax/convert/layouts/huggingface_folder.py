"""What a Hugging Face folder has besides weights: code, tokenizer, generation settings and card."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

from glm_jax.convert.layouts.huggingface_fields import token_fields
from glm_jax.convert.model_card import ModelCard
from glm_jax.errors import RunError
from glm_jax.model.config import GLMConfig
from glm_jax.tokenizer.glm_tokenizer import GLMTokenizer
from glm_jax.tokenizer.huggingface_export import huggingface_files

CODE_PACKAGE = "glm_jax.convert.huggingface_code"
CARD_FILE = "README.md"
GENERATION_FILE = "generation_config.json"


def write_folder_files(
    folder: Path, config: GLMConfig, tokenizer: GLMTokenizer | None, card: ModelCard
) -> None:
    """Writes everything that the folder's users need besides weights and config.json.

    Args:
      folder: with the weights.
      config: of the network.
      tokenizer: None where none is known; the folder has none then.
      card: what README.md says.

    Raises:
      UsageError: the tokenizer has no tokenizer.json.
      RunError: the disk failed.
    """
    files = code_files() | {CARD_FILE: card.text().encode()}
    if tokenizer is not None:
        files |= huggingface_files(tokenizer, config.num_positions)
        fields = token_fields(tokenizer)
        ends = [fields["eop_token_id"], fields["eos_token_id"]]
        settings = {"eos_token_id": ends, "pad_token_id": fields["pad_token_id"]}
        files[GENERATION_FILE] = (json.dumps(settings, indent=2) + "\n").encode()
    try:
        for name, content in files.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise RunError(f"{folder} can't be written: {error.strerror}") from error


def code_files() -> dict[str, bytes]:
    """The Python files that travel with a folder."""
    return {
        file.name: file.read_bytes()
        for file in resources.files(CODE_PACKAGE).iterdir()
        if file.name.endswith("_glm.py")
    }
