"""Special tokens: their names, their text and the ids they get after the pieces of text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
MASK_NAMES = frozenset({"MASK", "sMASK", "gMASK"})


@dataclass(frozen=True)
class SpecialTokens:
    """The special tokens of one vocabulary.

    ``ids`` maps the original's names to ids, in the original's order: where two names share an id,
    the later one is what the id is shown as. ``num_ids`` is what they add to the vocabulary size.
    """

    ids: Mapping[str, int]
    num_ids: int

    def text_to_id(self) -> dict[str, int]:
        """The id that each special token's text stands for."""
        return {TEXT_OF_SPECIAL_TOKEN[name]: id for name, id in self.ids.items()}

    def id_to_text(self) -> dict[int, str]:
        """The text that each special id is shown as."""
        return {id: TEXT_OF_SPECIAL_TOKEN[name] for name, id in self.ids.items()}


def contiguous_special_tokens(
    num_pieces: int, *, task_mask: bool, decoder_mask: bool
) -> SpecialTokens:
    """Special tokens of a vocabulary of our own: the original's order, no hole and no collision."""
    names = ["eos", "sep", "ENC", "MASK", "unk", "sop", "eop"]
    names += ["sMASK", "gMASK"] if task_mask else []
    names += ["dBLOCK"] if decoder_mask else []
    ids = {name: num_pieces + offset for offset, name in enumerate(names)}
    return SpecialTokens({"pad": ids["eos"], **ids}, num_ids=len(names))


def chinese_special_tokens(
    num_pieces: int, *, task_mask: bool, decoder_mask: bool, fix_command_token: bool
) -> SpecialTokens:
    """Special tokens of the original's Chinese vocabulary (source: the original code's tables).

    Id ``num_pieces + 5`` names nothing, and without ``fix_command_token`` it isn't counted either:
    what follows eop then begins at eop's own id, and where nothing follows, eop's id is
    ``num_pieces + num_ids``, just outside the count.
    """
    offsets = {"pad": 0, "eos": 0, "sep": 1, "ENC": 2, "MASK": 3, "unk": 4, "sop": 6, "eop": 7}
    num_ids = 8 if fix_command_token else 7
    if task_mask:
        names = ("sMASK", "gMASK") if fix_command_token else ("gMASK", "sMASK")
        offsets |= {name: num_ids + place for place, name in enumerate(names)}
        num_ids += 2
    if decoder_mask:
        offsets["dBLOCK"] = num_ids
        num_ids += 1
    ids = {name: num_pieces + offset for name, offset in offsets.items()}
    return SpecialTokens(ids, num_ids)
