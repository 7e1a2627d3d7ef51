"""ChatGLM's SentencePiece model: its text pieces, and the special ones of either release.

The file of the second release (130,344 pieces) has all of them. That of the first has only text;
the special pieces are appended when it is read, as the icetk package did at run time.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import sentencepiece

from glm_jax.errors import UsageError
from glm_jax.tokenizer.text_model import without_surrogates

MODEL_FILE = "ice_text.model"
# Ids below this are image tokens, which the first release has and the second dropped.
OLD_NUM_IMAGE_TOKENS = 20_000
MAX_BLANKS = 80
NEWLINE, TAB = "<n>", "<|tab|>"
BLANKS: Mapping[int, str] = {count: f"<|blank_{count}|>" for count in range(2, MAX_BLANKS + 1)}
CONTROL_PIECES = (
    "[MASK]",
    "[gMASK]",
    "[sMASK]",
    "<unused_0>",
    "<sop>",
    "<eop>",
    "<ENC>",
    "<dBLOCK>",
)
_BASE_PIECES = ("<unk>", "<pad>", NEWLINE)

# Types of pieces in a SentencePiece model.
_CONTROL, _USER_DEFINED, _BYTE = 3, 4, 6


class ChatGLMPieces:
    """The pieces of the vocabulary; ids are those of the file, without image tokens."""

    def __init__(self, model: bytes) -> None:
        """``model`` is the content of an ice_text.model of either release.

        Raises:
          UsageError: it is not a SentencePiece model, or not one of ChatGLM.
        """
        processor = _processor(model)
        missing = [piece for piece in _BASE_PIECES if not _has(processor, piece)]
        if missing:
            raise UsageError(
                f"the tokenizer's file is not ChatGLM's {MODEL_FILE}: "
                f"it has no piece {', '.join(missing)}"
            )
        self.is_old_release = not _has(processor, "[gMASK]")
        self._processor = _processor(model + special_pieces()) if self.is_old_release else processor
        self.file = model
        self.size: int = self._processor.vocab_size()

    def id_of(self, piece: str) -> int:
        """The id of a piece.

        Raises:
          UsageError: there is none.
        """
        if not _has(self._processor, piece):
            raise UsageError(
                f"the tokenizer's file is not ChatGLM's {MODEL_FILE}: it has no piece {piece}"
            )
        return self._processor.piece_to_id(piece)

    def encode(self, text: str) -> list[int]:
        """Ids of text, in which only `<n>`, `<|tab|>` and `<|blank_k|>` are special."""
        return self._processor.encode(with_whitespace_pieces(without_surrogates(text)))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids from 0 to ``size - 1``; control pieces add nothing."""
        return without_whitespace_pieces(self._processor.decode(list(ids)))

    def piece(self, id: int) -> str:
        """The piece as SentencePiece writes it: a leading space is U+2581."""
        return self._processor.id_to_piece(id)

    def is_byte(self, id: int) -> bool:
        """Whether a piece is a byte of a character that the vocabulary lacks."""
        return self._processor.is_byte(id)


def with_whitespace_pieces(text: str) -> str:
    """A text with its newlines, tabs and runs of 2 to 80 spaces as pieces, longest runs first."""
    text = text.replace("\n", NEWLINE).replace("\t", TAB)
    for count in range(MAX_BLANKS, 1, -1):
        text = text.replace(" " * count, BLANKS[count])
    return text


def without_whitespace_pieces(text: str) -> str:
    """The reverse of `with_whitespace_pieces`."""
    text = text.replace(NEWLINE, "\n").replace(TAB, "\t")
    for count, piece in BLANKS.items():
        text = text.replace(piece, " " * count)
    return text


def _processor(model: bytes) -> sentencepiece.SentencePieceProcessor:
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=model)
    except RuntimeError as error:
        raise UsageError("the tokenizer's file is not a SentencePiece model") from error


def _has(processor: sentencepiece.SentencePieceProcessor, piece: str) -> bool:
    return processor.id_to_piece(processor.piece_to_id(piece)) == piece


def special_pieces() -> bytes:
    """The special pieces in the wire format of a SentencePiece model, to append to its file.

    Repeated fields of protocol buffers are concatenated, and messages are merged.
    """
    pieces = [(piece, _CONTROL) for piece in CONTROL_PIECES]
    pieces += [(piece, _USER_DEFINED) for piece in (TAB, *BLANKS.values())]
    pieces += [(f"<0x{byte:02X}>", _BYTE) for byte in range(256)]
    appended = b"".join(_message(1, _piece_message(piece, kind)) for piece, kind in pieces)
    byte_fallback = _varint(35 << 3) + b"\x01"  # field 35 of the trainer's settings
    return appended + _message(2, byte_fallback)


def _piece_message(piece: str, kind: int) -> bytes:
    return _message(1, piece.encode()) + b"\x15" + struct.pack("<f", 0.0) + b"\x18" + bytes([kind])


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])
