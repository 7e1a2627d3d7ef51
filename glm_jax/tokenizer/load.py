"""Find a tokenizer by its kind and files, or by the folder it was saved in."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from glm_jax.errors import UsageError
from glm_jax.tokenizer.protocol import Tokenizer
from glm_jax.tokenizer.sentence_piece import (
    DESCRIPTION_FILE,
    KINDS,
    SentencePieceTokenizer,
    SpecialTokenOptions,
    load_sentencepiece,
)


def load_tokenizer(
    kind: str | PathLike[str],
    *paths: str | PathLike[str],
    task_mask: bool = False,
    decoder_mask: bool = False,
    fix_command_token: bool = False,
    sentinels: int = 0,
) -> Tokenizer:
    """A tokenizer of a kind, made of the files in ``paths``, or the one saved in a folder.

    Args:
      kind: "sentencepiece" or "chinese" (``paths`` is one SentencePiece model file), or a folder
        that holds a saved tokenizer: a tokenizer's, a token store's or a run's.
      task_mask: add the mask tokens sMASK and gMASK.
      decoder_mask: add dBLOCK.
      fix_command_token: kind "chinese" only, the table without the collision of eop and gMASK.
      sentinels: number of sentinel tokens, which no kind here has.

    Raises:
      UsageError: unknown kind, no such folder, wrong files or options that the kind doesn't have.
      RunError: a saved tokenizer is damaged.
    """
    if kind not in KINDS:
        if paths or task_mask or decoder_mask or fix_command_token or sentinels:
            raise UsageError(
                f"tokenizer {str(kind)!r} is not one of the kinds {', '.join(KINDS)}, "
                "and a saved tokenizer takes no files or options"
            )
        return load_sentencepiece(_saved_tokenizer_folder(Path(kind)))
    if sentinels:
        raise UsageError(f"sentinels is {sentinels}, but tokenizer kind {kind!r} has none")
    if len(paths) != 1 or not Path(paths[0]).is_file():
        found = ", ".join(map(str, paths)) or "none"
        raise UsageError(f"tokenizer kind {kind!r} needs one SentencePiece model file, got {found}")
    options = SpecialTokenOptions(str(kind), task_mask, decoder_mask, fix_command_token)
    return SentencePieceTokenizer(Path(paths[0]).read_bytes(), options)


def _saved_tokenizer_folder(path: Path) -> Path:
    """``path``, or its folder ``tokenizer`` (run and store folders keep theirs there)."""
    for folder in (path, path / "tokenizer"):
        if (folder / DESCRIPTION_FILE).is_file():
            return folder
    raise UsageError(
        f"{str(path)!r} is neither a folder with a saved tokenizer "
        f"nor one of the tokenizer kinds {', '.join(KINDS)}"
    )
