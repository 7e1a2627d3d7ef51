"""The files that are copied with weights: tokenizers, modeling code and settings."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from glm_jax.convert.layouts.native import NativeCheckpoint
from glm_jax.convert.weights import WeightSource
from glm_jax.model.config import GLMConfig

# Where a run folder keeps what came with a Hugging Face folder.
HUGGINGFACE_FOLDER = "huggingface"
TOKENIZER_FOLDER = "tokenizer"
GIN_FILE = "config.gin"

_SUFFIXES = frozenset({".json", ".md", ".model", ".py", ".txt"})
_REWRITTEN = frozenset(
    {"config.json", "model.safetensors.index.json", "pytorch_model.bin.index.json"}
)
# What only the code that came with a Hugging Face folder reads.
_OF_OTHER_CODE = frozenset({"added_tokens.json"})


def write_evaluation_settings(folder: Path, config: GLMConfig) -> None:
    """Writes the gin file that `glm-jax evaluate` looks for in a run folder."""
    values = {f"model.{name}": value for name, value in dataclasses.asdict(config).items()}
    values |= {
        "data.sequence_length": config.max_sequence_length,
        "data.batch_size": 8,
        # A configuration is that of a training run; an evaluation reads none of these.
        "optimizer.learning_rate": 1e-4,
        "optimizer.decay_steps": 1,
        "train.run_folder": "",
        "train.num_steps": 1,
    }
    lines = [f"{name} = {value!r}" for name, value in values.items()]
    comment = "# Converted weights: evaluate them with --gin.data.store=STORE."
    (folder / GIN_FILE).write_text("\n".join([comment, *lines]) + "\n")


def folder_of(source: WeightSource) -> Path:
    """The folder of a source's side files."""
    if isinstance(source, NativeCheckpoint):
        return Path(source.step_folder.parent.parent)
    return Path(getattr(source, "folder", source.path))


def copy_side_files(source: Path, source_kind: str, folder: Path, kind: str) -> list[Path]:
    """Copies the side files of converted weights.

    Args:
      source: the checkpoint's folder; a run folder for a checkpoint of ours.
      source_kind: "original", "huggingface" or "native".
      folder: the folder being written.
      kind: what is being written, one of the same three.

    Returns:
      The files' paths in `folder`.
    """
    copies: list[tuple[Path, Path]] = []
    if source_kind != "original" and kind != "original":
        kept = source / HUGGINGFACE_FOLDER if source_kind == "native" else source
        subfolder = Path(HUGGINGFACE_FOLDER) if kind == "native" else Path()
        copies += [
            (file, subfolder / file.name)
            for file in sorted(kept.glob("*"))
            if file.suffix in _SUFFIXES and file.name not in _REWRITTEN
        ]
    if source_kind == kind == "native":
        kept = source / TOKENIZER_FOLDER
        copies += [(file, Path(TOKENIZER_FOLDER) / file.name) for file in sorted(kept.glob("*"))]
        copies.append((source / GIN_FILE, Path(GIN_FILE)))
    written = (folder / "modeling_glm.py").exists()
    replaced = _OF_OTHER_CODE if written else frozenset()
    copied = []
    for file, target in copies:
        # What was written for this folder is newer, and has code and tokenizer of its own.
        ours = (folder / target).exists() or target.name in replaced
        if file.is_file() and not ours:
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / target)
            copied.append(target)
    return copied
