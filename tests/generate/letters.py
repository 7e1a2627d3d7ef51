"""A tokenizer that needs no files."""

from __future__ import annotations

import re

LETTERS = "abcdefghijklmnopqrstuvwxyz "
SPECIAL_TEXT = {"ENC": "[CLS]", "eos": "<eos>", "MASK": "[MASK]", "gMASK": "[gMASK]"}


class LetterTokenizer:
    """One id per letter, then special tokens."""

    def __init__(self, generation_mask: bool = True) -> None:
        names = ["ENC", "eos", "MASK", "sop", "eop", *(["gMASK"] if generation_mask else [])]
        self.special = {name: len(LETTERS) + place for place, name in enumerate(names)}
        self.vocab_size = len(LETTERS) + len(names)

    def encode(self, text: str) -> list[int]:
        ids = {SPECIAL_TEXT[name]: id for name, id in self.special.items() if name in SPECIAL_TEXT}
        parts = re.findall(r"\[g?MASK\]|.", text)
        return [ids[part] if part in ids else LETTERS.index(part) for part in parts]

    def encode_text(self, text: str) -> list[int]:
        return [LETTERS.index(letter) for letter in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(LETTERS[id] if id < len(LETTERS) else f"<{id}>" for id in ids)
