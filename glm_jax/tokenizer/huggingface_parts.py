"""The parts of a tokenizer.json that a vocabulary was made of, in a folder with GLM's tokens."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from glm_jax.tokenizer.hugging_face import HuggingFaceModel

_NAMES = ("normalizer", "pre_tokenizer", "model", "decoder")


def described_parts(model: HuggingFaceModel, special_texts: Collection[str]) -> dict[str, Any]:
    """Normalizer, pre-tokenizer, model and decoder, as old versions of the library read them too.

    A piece with the text of one of GLM's special tokens would be taken for it, with the piece's id.
    It is renamed; the new name has the old one in it, so that no text between special tokens has
    it.

    Args:
      model: the vocabulary.
      special_texts: of GLM's tokens.
    """
    description = json.loads(next(iter(model.files.values())))
    parts = {name: description.get(name) for name in _NAMES}
    names = {text: f"{text} of the vocabulary" for text in special_texts}
    parts["model"] = _renamed(parts["model"], names)
    for name in ("pre_tokenizer", "decoder"):
        _complete(parts[name])
    return parts


def _renamed(model: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """A model with other names for some pieces."""
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        renamed: Any = {names.get(piece, piece): id for piece, id in vocabulary.items()}
    else:
        renamed = [[names.get(piece, piece), score] for piece, score in vocabulary]
    changed = {**model, "vocab": renamed}
    if model.get("unk_token") in names:
        changed["unk_token"] = names[model["unk_token"]]
    if "merges" in model:
        pairs = (pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"])
        kept = [pair for pair in pairs if names.keys().isdisjoint({*pair, "".join(pair)})]
        # Until version 0.20 of the library, merges are texts.
        spaced = any(" " in piece for pair in kept for piece in pair)
        changed["merges"] = kept if spaced else [" ".join(pair) for pair in kept]
    return changed


def _complete(part: dict[str, Any] | None) -> None:
    """Adds to each Metaspace the field that it had until version 0.15 of the library."""
    if part is None:
        return
    for inner in (*part.get("pretokenizers", ()), *part.get("decoders", ())):
        _complete(inner)
    if part.get("type") == "Metaspace" and part.get("prepend_scheme") in ("always", "never"):
        part.setdefault("add_prefix_space", part["prepend_scheme"] == "always")
