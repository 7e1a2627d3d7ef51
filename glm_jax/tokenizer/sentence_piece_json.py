"""A SentencePiece model as the parts of a Hugging Face `tokenizer.json`.

Text is handled by normalizers and a model alone, so that it stays in one piece as it does in
SentencePiece.
"""

from __future__ import annotations

import base64
from typing import Any

from sentencepiece import sentencepiece_model_pb2 as messages

from glm_jax.errors import UsageError

SPACE = "\u2581"
_UNIGRAM, _BPE = 1, 2
_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
# Characters that are no text: while a text is encoded they hold the positions of user-defined
# pieces of several characters, which a model would put together or not.
_NONCHARACTERS = [chr(0xFDD0 + number) for number in range(32)]


def sentence_piece_parts(model: bytes) -> dict[str, Any]:
    """The fields normalizer, pre_tokenizer, model and decoder of a tokenizer.json.

    Args:
      model: content of a SentencePiece model file.

    Raises:
      UsageError: it has a kind of model, or more user-defined pieces, than can be written so.
    """
    proto = messages.ModelProto()  # pyright: ignore[reportAttributeAccessIssue]
    proto.ParseFromString(model)
    stand_ins = _stand_ins(proto)
    texts = [str(piece.piece) for piece in proto.pieces]
    pieces = [stand_ins.get(text, text) for text in texts]
    if proto.trainer_spec.model_type == _BPE:
        network = _byte_pairs(proto, pieces)
    elif proto.trainer_spec.model_type == _UNIGRAM:
        network = _unigram(proto, pieces)
    else:
        raise UsageError(
            "the SentencePiece model has words or characters as pieces; only byte pairs and "
            "unigrams can be written as a tokenizer.json"
        )
    return {
        "normalizer": {"type": "Sequence", "normalizers": _normalizers(proto, stand_ins)},
        "pre_tokenizer": None,
        "model": network,
        "decoder": {"type": "Sequence", "decoders": _decoders(proto, stand_ins)},
    }


def _stand_ins(proto: Any) -> dict[str, str]:
    """The single character for each user-defined piece of several."""
    long = [piece.piece for piece in proto.pieces if piece.type == _USER and len(piece.piece) > 1]
    if len(long) >= len(_NONCHARACTERS):
        raise UsageError(
            f"the SentencePiece model has {len(long)} user-defined pieces of several characters; "
            f"at most {len(_NONCHARACTERS) - 1} can be written as a tokenizer.json"
        )
    # The longest first, as SentencePiece looks for them.
    longest_first = sorted(long, key=len, reverse=True)
    return dict(zip(longest_first, _NONCHARACTERS[1:], strict=False))


def _normalizers(proto: Any, stand_ins: dict[str, str]) -> list[dict[str, Any]]:
    spec = proto.normalizer_spec
    steps = [_replace({"String": stand_in}, _NONCHARACTERS[0]) for stand_in in stand_ins.values()]
    steps += [_replace({"String": piece}, stand_in) for piece, stand_in in stand_ins.items()]
    if spec.precompiled_charsmap:
        charsmap = base64.b64encode(spec.precompiled_charsmap).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": charsmap})
    if spec.remove_extra_whitespaces:
        steps += [_replace({"Regex": "^ +"}, ""), _replace({"Regex": " {2,}"}, " ")]
    steps.append(_replace({"String": " "}, SPACE))
    if spec.remove_extra_whitespaces:
        steps.append(_replace({"Regex": f"{SPACE}+$"}, ""))
    if spec.add_dummy_prefix:
        steps.append({"type": "Prepend", "prepend": SPACE})
    return steps


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _decoders(proto: Any, stand_ins: dict[str, str]) -> list[dict[str, Any]]:
    steps = [_replace({"String": stand_in}, piece) for piece, stand_in in stand_ins.items()]
    unknown = next(piece.piece for piece in proto.pieces if piece.type == _UNKNOWN)
    steps.append(_replace({"String": unknown}, proto.trainer_spec.unk_surface))
    steps += [_replace({"String": SPACE}, " "), {"type": "ByteFallback"}, {"type": "Fuse"}]
    if proto.normalizer_spec.add_dummy_prefix:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return steps


def _byte_pairs(proto: Any, pieces: list[str]) -> dict[str, Any]:
    """Merges in the order of the pieces' scores, every pair of pieces that makes one of them."""
    ids = {piece: id for id, piece in enumerate(pieces)}
    parts = {piece.piece for piece in proto.pieces if piece.type == _NORMAL}
    ranked = sorted(
        (piece for piece in proto.pieces if piece.type == _NORMAL and len(piece.piece) > 1),
        key=lambda piece: -piece.score,
    )
    merges = [
        f"{piece.piece[:cut]} {piece.piece[cut:]}"
        for piece in ranked
        for cut in range(1, len(piece.piece))
        if piece.piece[:cut] in parts and piece.piece[cut:] in parts
    ]
    unknown = next(piece.piece for piece in proto.pieces if piece.type == _UNKNOWN)
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": proto.trainer_spec.byte_fallback,
        "vocab": ids,
        "merges": merges,
    }


def _unigram(proto: Any, pieces: list[str]) -> dict[str, Any]:
    unknown = next(id for id, piece in enumerate(proto.pieces) if piece.type == _UNKNOWN)
    scores = [piece.score for piece in proto.pieces]
    return {
        "type": "Unigram",
        "unk_id": unknown,
        "vocab": [list(pair) for pair in zip(pieces, scores, strict=True)],
        "byte_fallback": proto.trainer_spec.byte_fallback,
    }
