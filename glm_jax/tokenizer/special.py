"""Special tokens: their names, their text and the ids they get in each kind of vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from glm_jax import validation
from glm_jax.errors import UsageError

TEXT_OF_SPECIAL_TOKEN: Mapping[str, str] = {
    "pad": "<|endoftext|>",
    "eos": "<|endoftext|>",
    "sep": "[SEP]",
    "ENC": "[CLS]",
    "MASK": "[MASK]",
    "unk": "[UNK]",
    "sop": "<|startofpiece|>",
    "eop": "<|endofpiece|>",
    "sMASK": "[sMASK]",
    "gMASK": "[gMASK]",
    "dBLOCK": "[dBLOCK]",
}
BERT_PADDING = "[PAD]"
MASK_NAMES = frozenset({"MASK", "sMASK", "gMASK"})


@dataclass(frozen=True)
class SpecialTokenOptions:
    """Which special tokens a vocabulary gets.

    Attributes:
      task_mask: sMASK and gMASK, the mask tokens of sentences and of documents.
      decoder_mask: dBLOCK, which hides tokens inside a blank.
      fix_command_token: kind "chinese" only, the table without the collision of eop and gMASK.
      sentinels: number of sentinel pairs MASK1 sop1, MASK2 sop2, ...
      blocks: sop and eop, without which nothing can be filled; False only to read old encodings.

    Raises:
      UsageError: a negative number of sentinels, or additions to a table without sop and eop.
    """

    task_mask: bool = False
    decoder_mask: bool = False
    fix_command_token: bool = False
    sentinels: int = 0
    blocks: bool = True

    def __post_init__(self) -> None:
        validation.at_least("tokenizer", self, 0, "sentinels")
        if not self.blocks and (self.task_mask or self.decoder_mask or self.sentinels):
            raise UsageError("special tokens without sop and eop can have no further mask tokens")

    def additions(self, task_masks: tuple[str, str]) -> list[str]:
        """Names that follow the fixed ones, in the original's order of options."""
        names = list(task_masks) if self.task_mask else []
        names += ["dBLOCK"] if self.decoder_mask else []
        for number in range(1, self.sentinels + 1):
            names += [f"MASK{number}", f"sop{number}"]
        return names


@dataclass(frozen=True)
class SpecialTokens:
    """The special tokens of one vocabulary.

    Attributes:
      ids: the original's names to ids, in the original's order: where two names share an id, the
        later one is what the id is shown as.
      vocab_size: pieces of text plus special tokens, counted as the original counts them.
      padding_text: what pad and eos are written as.
    """

    ids: Mapping[str, int]
    vocab_size: int
    padding_text: str = TEXT_OF_SPECIAL_TOKEN["eos"]

    def text_to_id(self) -> dict[str, int]:
        """The id of each special token's text."""
        return {self._text(name): id for name, id in self.ids.items()}

    def id_to_text(self) -> dict[int, str]:
        """The text that each special id is shown as."""
        return {id: self._text(name) for name, id in self.ids.items()}

    def mask_texts(self) -> frozenset[str]:
        """The texts of mask tokens, to whose left whitespace is dropped."""
        return frozenset(self._text(name) for name in self.ids if name in MASK_NAMES)

    def _text(self, name: str) -> str:
        if name in ("pad", "eos"):
            return self.padding_text
        if name in TEXT_OF_SPECIAL_TOKEN:
            return TEXT_OF_SPECIAL_TOKEN[name]
        number = name.lstrip("MASKsop")  # the sentinels MASK1, sop1, MASK2, ...
        return f"[MASK{number}]" if name.startswith("MASK") else f"<|startofpiece{number}|>"


def appended_special_tokens(num_pieces: int, options: SpecialTokenOptions) -> SpecialTokens:
    """Special tokens of a vocabulary of our own: all after its pieces, no hole and no collision."""
    names = ["eos", "sep", "ENC", "MASK", "unk"] + (["sop", "eop"] if options.blocks else [])
    names += options.additions(("sMASK", "gMASK"))
    ids = _numbered(names, num_pieces)
    return SpecialTokens({"pad": ids["eos"], **ids}, num_pieces + len(names))


def bert_special_tokens(
    num_pieces: int, options: SpecialTokenOptions, piece_ids: Mapping[str, int]
) -> SpecialTokens:
    """Special tokens of a BERT vocabulary, which has most of them among its pieces.

    Source: the original code's tables.
    """
    pieces = {"pad": BERT_PADDING} | {
        name: TEXT_OF_SPECIAL_TOKEN[name] for name in ("ENC", "MASK", "unk", "sep")
    }
    ids = _among_pieces(pieces, piece_ids, "BERT")
    names = (["sop", "eop"] if options.blocks else []) + options.additions(("gMASK", "sMASK"))
    ids = {**ids, "eos": ids["pad"], **_numbered(names, num_pieces)}
    return SpecialTokens(ids, num_pieces + len(names), BERT_PADDING)


def gpt2_special_tokens(
    num_pieces: int, options: SpecialTokenOptions, piece_ids: Mapping[str, int]
) -> SpecialTokens:
    """Special tokens of the GPT-2 vocabulary, which has the end of text among its pieces.

    Source: the original code's tables.
    """
    ids = _among_pieces({"pad": TEXT_OF_SPECIAL_TOKEN["eos"]}, piece_ids, "GPT-2")
    names = ["sop", "eop", "ENC", "MASK", "sep", "unk"] if options.blocks else []
    names += options.additions(("gMASK", "sMASK"))
    ids = {**ids, "eos": ids["pad"], **_numbered(names, num_pieces)}
    return SpecialTokens(ids, num_pieces + len(names))


def roberta_special_tokens(
    num_pieces: int, options: SpecialTokenOptions, piece_ids: Mapping[str, int]
) -> SpecialTokens:
    """Special tokens of the RoBERTa vocabulary, where pad, eos and sep share an id.

    Source: the original code's tables.
    """
    pieces = {"eos": "</s>", "ENC": "<s>", "MASK": "<mask>", "unk": "<unk>"}
    found = _among_pieces(pieces, piece_ids, "RoBERTa")
    ids = {"pad": found["eos"], "eos": found["eos"], "sep": found["eos"], **found}
    names = (["sop", "eop"] if options.blocks else []) + options.additions(("gMASK", "sMASK"))
    return SpecialTokens({**ids, **_numbered(names, num_pieces)}, num_pieces + len(names))


def chinese_special_tokens(num_pieces: int, options: SpecialTokenOptions) -> SpecialTokens:
    """Special tokens of the original's Chinese vocabulary (source: the original code's tables).

    Id ``num_pieces + 5`` names nothing, and without ``fix_command_token`` it isn't counted either:
    what follows eop then starts at eop's own id, and where nothing follows, eop's id is the
    vocabulary's size, just outside the count.
    """
    offsets = {"pad": 0, "eos": 0, "sep": 1, "ENC": 2, "MASK": 3, "unk": 4}
    count = 5
    if options.blocks:
        offsets |= {"sop": 6, "eop": 7}
        count = 8 if options.fix_command_token else 7
    task_masks = ("sMASK", "gMASK") if options.fix_command_token else ("gMASK", "sMASK")
    names = options.additions(task_masks)
    ids = {name: num_pieces + offset for name, offset in offsets.items()}
    ids |= _numbered(names, num_pieces + count)
    return SpecialTokens(ids, num_pieces + count + len(names))


def _numbered(names: list[str], first: int) -> dict[str, int]:
    return {name: first + offset for offset, name in enumerate(names)}


def _among_pieces(
    pieces: Mapping[str, str], piece_ids: Mapping[str, int], vocabulary: str
) -> dict[str, int]:
    missing = [piece for piece in pieces.values() if piece not in piece_ids]
    if missing:
        raise UsageError(
            f"this is not a {vocabulary} vocabulary: it has no piece {', '.join(missing)}"
        )
    return {name: piece_ids[piece] for name, piece in pieces.items()}
