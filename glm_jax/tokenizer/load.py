"""Find a tokenizer by its kind and files, or by the folder it was saved in."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path

from etils import epath

from glm_jax.errors import RunError, UsageError
from glm_jax.io.hub import checkpoint_path
from glm_jax.io.paths import resolve_path
from glm_jax.tokenizer.byte_pair import BytePairModel
from glm_jax.tokenizer.chatglm import KIND as CHATGLM
from glm_jax.tokenizer.chatglm import ChatGLMTokenizer
from glm_jax.tokenizer.chatglm_pieces import MODEL_FILE as CHATGLM_FILE
from glm_jax.tokenizer.chatglm_pieces import OLD_NUM_IMAGE_TOKENS
from glm_jax.tokenizer.glm_tokenizer import DESCRIPTION_FILE, GLMTokenizer
from glm_jax.tokenizer.hugging_face import HuggingFaceModel
from glm_jax.tokenizer.huggingface_import import published_tokenizer
from glm_jax.tokenizer.protocol import Tokenizer
from glm_jax.tokenizer.sentence_piece import SentencePieceModel
from glm_jax.tokenizer.special import (
    SpecialTokenOptions,
    SpecialTokens,
    appended_special_tokens,
    bert_special_tokens,
    chinese_special_tokens,
    gpt2_special_tokens,
    roberta_special_tokens,
)
from glm_jax.tokenizer.text_model import TextModel
from glm_jax.tokenizer.word_piece import WordPieceModel

_Table = Callable[[TextModel, SpecialTokenOptions], SpecialTokens]


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of tokenizer.

    Attributes:
      build: the tokenizer from its files' contents, in the order of ``files``.
      files: for every file it needs, what it is called, and the names (patterns) under which a
        folder may have it.
    """

    build: Callable[[Sequence[bytes], SpecialTokenOptions], Tokenizer]
    files: Mapping[str, tuple[str, ...]]


def _glm(
    name: str, make: Callable[..., TextModel], table: _Table, files: Mapping[str, tuple[str, ...]]
) -> Kind:
    """A kind whose special tokens are added to a vocabulary of text."""

    def build(contents: Sequence[bytes], options: SpecialTokenOptions) -> GLMTokenizer:
        pieces = make(*contents)
        description = {"kind": name, **dataclasses.asdict(options)}
        return GLMTokenizer(pieces, table(pieces, options), description)

    return Kind(build, files)


def _build_chatglm(
    contents: Sequence[bytes], options: SpecialTokenOptions, num_image_tokens: int | None = None
) -> ChatGLMTokenizer:
    if options != SpecialTokenOptions():
        raise UsageError("the tokenizer kind 'chatglm' has its special tokens and takes no options")
    return ChatGLMTokenizer(contents[0], num_image_tokens)


def _appended(pieces: TextModel, options: SpecialTokenOptions) -> SpecialTokens:
    return appended_special_tokens(pieces.size, options)


def _bert(pieces: TextModel, options: SpecialTokenOptions) -> SpecialTokens:
    return bert_special_tokens(pieces.size, options, pieces.piece_ids)


_VOCAB_TXT = {"vocab.txt": ("vocab.txt", "*-vocab.txt")}
_BYTE_PAIRS = {
    "vocab.json": ("vocab.json", "encoder.json", "*-vocab.json"),
    "merges.txt": ("merges.txt", "vocab.bpe", "*-merges.txt"),
}
_MODEL = {"SentencePiece model": ("pieces.model", "cog-pretrain.model", "*.model")}
_DESCRIPTION = {"tokenizer.json": ("tokenizer.json", "huggingface.json")}

KINDS: Mapping[str, Kind] = {
    "bert": _glm("bert", lambda file: WordPieceModel(file, lowercase=True), _bert, _VOCAB_TXT),
    "bert-cased": _glm(
        "bert-cased", lambda file: WordPieceModel(file, lowercase=False), _bert, _VOCAB_TXT
    ),
    "gpt2": _glm(
        "gpt2",
        BytePairModel,
        lambda pieces, options: gpt2_special_tokens(pieces.size, options, pieces.piece_ids),
        _BYTE_PAIRS,
    ),
    "roberta": _glm(
        "roberta",
        BytePairModel,
        lambda pieces, options: roberta_special_tokens(pieces.size, options, pieces.piece_ids),
        _BYTE_PAIRS,
    ),
    "chinese": _glm(
        "chinese",
        SentencePieceModel,
        lambda pieces, options: chinese_special_tokens(pieces.size, options),
        _MODEL,
    ),
    "sentencepiece": _glm("sentencepiece", SentencePieceModel, _appended, _MODEL),
    "huggingface": _glm("huggingface", HuggingFaceModel, _appended, _DESCRIPTION),
    CHATGLM: Kind(_build_chatglm, {CHATGLM_FILE: (CHATGLM_FILE, "*.model")}),
}


class NoTokenizerError(UsageError):
    """A folder has no tokenizer, not even a damaged one."""


def load_tokenizer(
    kind: str | PathLike[str],
    *paths: str | PathLike[str],
    task_mask: bool = False,
    decoder_mask: bool = False,
    fix_command_token: bool = False,
    sentinels: int = 0,
    blocks: bool = True,
    num_image_tokens: int | None = None,
) -> Tokenizer:
    """A tokenizer of a kind, made of the files in ``paths``, or the one saved in a folder.

    Args:
      kind: "bert", "bert-cased" (a vocab.txt), "gpt2", "roberta" (vocab.json and merges.txt),
        "chinese", "sentencepiece" (a SentencePiece model), "huggingface" (a tokenizer.json),
        "chatglm" (an ice_text.model), or a folder or URL that holds a saved tokenizer: a
        tokenizer's, a token store's, a run's or a published ChatGLM-6B's.
      paths: the kind's files in this order, or one folder that has them.
      task_mask: add the mask tokens sMASK and gMASK.
      decoder_mask: add dBLOCK.
      fix_command_token: kind "chinese" only, the table without the collision of eop and gMASK.
      sentinels: number of sentinel pairs MASK1 sop1, MASK2 sop2, ... to add.
      blocks: False leaves out sop and eop, as the original does without its block objective.
      num_image_tokens: kind "chatglm" only, ids before those of the text; None as the
        tokenizer_config.json in the folder has it, or as the release of the file has it.

    Raises:
      UsageError: unknown kind, no such folder, wrong files or options that the kind doesn't have.
      RunError: a saved tokenizer is damaged.
    """
    options = SpecialTokenOptions(task_mask, decoder_mask, fix_command_token, sentinels, blocks)
    if kind not in KINDS:
        if paths or options != SpecialTokenOptions() or num_image_tokens is not None:
            raise UsageError(
                f"tokenizer {str(kind)!r} is not one of the kinds {', '.join(KINDS)}, "
                "and a saved tokenizer takes no files or options"
            )
        return _load_from_folder(checkpoint_path(kind, "the tokenizer"))
    files = _find_files(str(kind), [resolve_path(path, "a tokenizer file") for path in paths])
    contents = [file.read_bytes() for file in files]
    if kind == CHATGLM:
        if num_image_tokens is None:
            num_image_tokens = _published_num_image_tokens(files[0].parent)
        return _build_chatglm(contents, options, num_image_tokens)
    if num_image_tokens is not None:
        raise UsageError("num_image_tokens is only for tokenizer kind 'chatglm'")
    return make_tokenizer(str(kind), contents, options)


def make_tokenizer(kind: str, files: Sequence[bytes], options: SpecialTokenOptions) -> Tokenizer:
    """A tokenizer from the contents of its kind's files.

    Raises:
      UsageError: the files are not what the kind needs, or it doesn't have these options.
    """
    if options.fix_command_token and kind != "chinese":
        raise UsageError(
            f"fix_command_token is set for tokenizer kind {kind!r}, "
            "but only kind 'chinese' has a table to fix"
        )
    return KINDS[kind].build(files, options)


def _published_num_image_tokens(folder: epath.Path) -> int | None:
    """The image tokens that a tokenizer_config.json of ChatGLM-6B says; None where there is none.

    Raises:
      UsageError: the file is no JSON object, or the number no integer.
    """
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_bytes())
        if config.get("tokenizer_class") != "ChatGLMTokenizer":
            return None
        # The published class' default, where the field is absent.
        number = config.get("num_image_tokens", OLD_NUM_IMAGE_TOKENS)
    except (ValueError, AttributeError) as error:
        raise UsageError(f"{path} can't be read: {error}") from error
    if not isinstance(number, int) or isinstance(number, bool):
        raise UsageError(f"num_image_tokens in {path} is {number!r}, but must be an integer")
    return number


def _find_files(kind: str, paths: list[epath.Path]) -> list[epath.Path]:
    needed = KINDS[kind].files
    if len(paths) == 1 and paths[0].is_dir():
        return [_find_file(kind, paths[0], *file) for file in needed.items()]
    if len(paths) != len(needed):
        raise UsageError(
            f"tokenizer kind {kind!r} needs the path of its {' and its '.join(needed)}, or of a "
            f"folder with that; got {', '.join(map(str, paths)) or 'none'}"
        )
    for path, name in zip(paths, needed, strict=True):
        if not path.is_file():
            raise UsageError(f"tokenizer kind {kind!r} needs its {name}: there is no file {path}")
    return paths


def _find_file(kind: str, folder: epath.Path, name: str, patterns: tuple[str, ...]) -> epath.Path:
    for pattern in patterns:
        found = sorted(path for path in folder.iterdir() if path.match(pattern) and path.is_file())
        if len(found) > 1:
            raise UsageError(
                f"tokenizer kind {kind!r} needs one {name}, but {folder} has "
                f"{', '.join(path.name for path in found)}: give the file itself"
            )
        if found:
            return found[0]
    raise UsageError(
        f"tokenizer kind {kind!r} needs its {name}, and {folder} has none "
        f"(looked for {', '.join(patterns)})"
    )


def _load_saved(folder: epath.Path) -> Tokenizer:
    """The tokenizer that ``save`` wrote into ``folder``."""
    try:
        description = json.loads((folder / DESCRIPTION_FILE).read_bytes())
        files = [folder / Path(name).name for name in description["files"]]
        contents = [file.read_bytes() for file in files]
        if description["kind"] == CHATGLM:
            number = description["num_image_tokens"]
            tokenizer = _build_chatglm(contents, SpecialTokenOptions(), number)
        else:
            fields = {field.name for field in dataclasses.fields(SpecialTokenOptions)}
            options = SpecialTokenOptions(**{name: description[name] for name in fields})
            tokenizer = make_tokenizer(description["kind"], contents, options)
        intact = tokenizer.fingerprint == description["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError, UsageError) as error:
        raise RunError(f"the tokenizer in {folder} cannot be read: {error}") from error
    if not intact:
        names = ", ".join(file.name for file in files)
        raise RunError(f"the tokenizer in {folder} was changed after it was saved: {names}")
    return tokenizer


def _load_from_folder(path: epath.Path) -> Tokenizer:
    """A saved tokenizer in ``path`` or its folder ``tokenizer``, or that of a Hugging Face folder.

    Run and store folders keep theirs in the folder ``tokenizer``, and converted ones what came with
    a Hugging Face folder in ``huggingface``.
    """
    for folder in (path, path / "tokenizer"):
        if (folder / DESCRIPTION_FILE).is_file():
            return _load_saved(folder)
    for folder in (path, path / "huggingface"):
        if (folder / CHATGLM_FILE).is_file():
            return load_tokenizer(CHATGLM, folder / CHATGLM_FILE)
        if (folder / DESCRIPTION_FILE).is_file():
            return _load_saved(folder)
        if (found := published_tokenizer(folder)) is not None:
            return load_tokenizer(found.kind, folder, **found.options)
    if path.is_file():
        return _load_from_folder(path.parent)
    raise NoTokenizerError(
        f"{os.fspath(path)!r} is neither a folder with a saved tokenizer "
        f"nor one of the tokenizer kinds {', '.join(KINDS)}"
    )
