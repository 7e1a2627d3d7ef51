"""The SentencePiece tokenizer: the pieces of a model file, then the special tokens."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from os import PathLike
from pathlib import Path

import numpy as np
import sentencepiece
from jaxtyping import Bool

from glm_jax.errors import RunError, UsageError
from glm_jax.tokenizer.protocol import SENTENCE_END_CHARACTERS, padded_size
from glm_jax.tokenizer.special import (
    MASK_NAMES,
    TEXT_OF_SPECIAL_TOKEN,
    SpecialTokens,
    chinese_special_tokens,
    contiguous_special_tokens,
)

MODEL_FILE = "pieces.model"
DESCRIPTION_FILE = "tokenizer.json"
KINDS = ("sentencepiece", "chinese")

_MASK_TEXTS = frozenset(TEXT_OF_SPECIAL_TOKEN[name] for name in MASK_NAMES)


@dataclass(frozen=True)
class SpecialTokenOptions:
    """Which special tokens follow the pieces.

    ``kind`` is "sentencepiece" (a model of one's own) or "chinese" (the published one, whose table
    has a hole and, without ``fix_command_token``, a collision). ``task_mask`` adds sMASK and gMASK,
    ``decoder_mask`` adds dBLOCK.
    """

    kind: str = "sentencepiece"
    task_mask: bool = False
    decoder_mask: bool = False
    fix_command_token: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"tokenizer kind is {self.kind!r}, expected one of {', '.join(KINDS)}")
        if self.fix_command_token and self.kind != "chinese":
            raise UsageError(
                f"fix_command_token is set for tokenizer kind {self.kind!r}, "
                "but only kind 'chinese' has a table to fix"
            )

    def table(self, num_pieces: int) -> SpecialTokens:
        """The special tokens behind ``num_pieces`` pieces of text."""
        masks = {"task_mask": self.task_mask, "decoder_mask": self.decoder_mask}
        if self.kind == "chinese":
            return chinese_special_tokens(
                num_pieces, fix_command_token=self.fix_command_token, **masks
            )
        return contiguous_special_tokens(num_pieces, **masks)


class SentencePieceTokenizer:
    """A SentencePiece model followed by GLM's special tokens.

    Whitespace is treated as the model file says. A model made by ``train_sentencepiece`` keeps
    every character, so that ``decode(encode_text(text)) == text``, with one exception: U+2581, the
    mark SentencePiece uses for a space, comes back as a space.
    """

    def __init__(self, model: bytes, options: SpecialTokenOptions) -> None:
        """``model`` is the content of a SentencePiece model file.

        Raises:
          UsageError: ``model`` is not a SentencePiece model.
        """
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise UsageError("the tokenizer's file is not a SentencePiece model") from error
        self._model = model
        self._options = options
        self._num_pieces: int = self._processor.vocab_size()
        table = options.table(self._num_pieces)
        self._special = dict(table.ids)
        self._vocab_size = self._num_pieces + table.num_ids
        self._text_to_id = table.text_to_id()
        self._id_to_text = table.id_to_text()
        self._special_pattern = re.compile("|".join(map(re.escape, self._text_to_id)))
        self._fingerprint = _fingerprint(model, self._special)
        self._sentence_end = np.zeros(self.padded_vocab_size, dtype=bool)
        self._sentence_end[: self._num_pieces] = _sentence_ends(self._processor)
        self._sentence_end.setflags(write=False)

    @property
    def special(self) -> Mapping[str, int]:
        return self._special

    @property
    def vocab_size(self) -> int:
        """Pieces of text plus special tokens, counted as the original counts them.

        For kind "chinese" without its fix the id of the last special token may equal this number.
        """
        return self._vocab_size

    @property
    def padded_vocab_size(self) -> int:
        return padded_size(self._vocab_size)

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @property
    def sentence_end(self) -> Bool[np.ndarray, "V"]:
        return self._sentence_end

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``; whitespace to the left of a mask token is dropped."""
        ids: list[int] = []
        position = 0
        for match in self._special_pattern.finditer(text):
            before = text[position : match.start()]
            ids += self.encode_text(before.rstrip() if match[0] in _MASK_TEXTS else before)
            ids.append(self._text_to_id[match[0]])
            position = match.end()
        return ids + self.encode_text(text[position:])

    def encode_text(self, text: str) -> list[int]:
        """Ids of ``text`` taken literally; a lone surrogate, which is no text, counts as "?"."""
        return self._processor.encode(text.encode(errors="replace"))

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``; ids that name nothing (holes and padding of the table) are left out.

        Raises:
          UsageError: an id is negative or beyond the padded vocabulary.
        """
        checked = [self._checked(id) for id in ids]
        texts: list[str] = []
        for is_text, run in groupby(checked, key=lambda id: id < self._num_pieces):
            if is_text:
                texts.append(self._processor.decode(list(run)))
            else:
                texts += [self._id_to_text.get(id, "") for id in run]
        return "".join(texts)

    def piece(self, id: int) -> str:
        """The token as SentencePiece writes it (a leading space is U+2581), or its special text."""
        id = self._checked(id)
        if id < self._num_pieces:
            return self._processor.id_to_piece(id)
        return self._id_to_text.get(id, f"<unused {id}>")

    def save(self, folder: str | PathLike[str]) -> None:
        """Write the model file and, last, the description that makes the folder a tokenizer."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        description = {
            "kind": self._options.kind,
            "task_mask": self._options.task_mask,
            "decoder_mask": self._options.decoder_mask,
            "fix_command_token": self._options.fix_command_token,
            "vocab_size": self.vocab_size,
            "special": self._special,
            "fingerprint": self.fingerprint,
        }
        _replace_file(folder / MODEL_FILE, self._model)
        _replace_file(folder / DESCRIPTION_FILE, json.dumps(description, indent=2).encode())

    def _checked(self, id: int) -> int:
        if not 0 <= id < self.padded_vocab_size:
            raise UsageError(
                f"token id {id} is outside the padded vocabulary of {self.padded_vocab_size}"
            )
        return int(id)


def load_sentencepiece(folder: Path) -> SentencePieceTokenizer:
    """The tokenizer that ``SentencePieceTokenizer.save`` wrote into ``folder``.

    Raises:
      RunError: a file is missing or was changed since.
    """
    try:
        description = json.loads((folder / DESCRIPTION_FILE).read_bytes())
        options = SpecialTokenOptions(
            kind=description["kind"],
            task_mask=description["task_mask"],
            decoder_mask=description["decoder_mask"],
            fix_command_token=description["fix_command_token"],
        )
        tokenizer = SentencePieceTokenizer((folder / MODEL_FILE).read_bytes(), options)
        intact = tokenizer.fingerprint == description["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError, UsageError) as error:
        raise RunError(f"the tokenizer in {folder} cannot be read: {error}") from error
    if not intact:
        raise RunError(f"the tokenizer in {folder} was changed after it was saved: {MODEL_FILE}")
    return tokenizer


def _fingerprint(model: bytes, special: Mapping[str, int]) -> str:
    special_bytes = json.dumps(special, sort_keys=True).encode()
    return hashlib.sha256(hashlib.sha256(model).digest() + special_bytes).hexdigest()


def _sentence_ends(processor: sentencepiece.SentencePieceProcessor) -> list[bool]:
    """Whether each piece's text contains a sentence end; a piece for a byte is written <0x0A>."""
    pieces = [
        chr(int(piece[3:5], base=16)) if processor.is_byte(id) else piece
        for id, piece in enumerate(map(processor.id_to_piece, range(processor.vocab_size())))
    ]
    return [not SENTENCE_END_CHARACTERS.isdisjoint(piece) for piece in pieces]


def _replace_file(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_bytes(content)
    os.replace(temporary, path)
