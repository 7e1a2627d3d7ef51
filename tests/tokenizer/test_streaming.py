"""Text that grows token by token is told whole characters at a time."""

from __future__ import annotations

from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from glm_jax.tokenizer import Tokenizer
from glm_jax.tokenizer.streaming import GrowingText


class ByteTokenizer:
    """One id per byte of UTF-8."""

    def decode(self, ids: list[int]) -> str:
        return bytes(ids).decode(errors="replace")


@given(st.text())
def test_bytes_come_out_as_whole_characters(text):
    growing = GrowingText(cast(Tokenizer, ByteTokenizer()))
    told = [growing.add(byte) for byte in text.encode()]
    assert "".join(told) + growing.end() == text
    if "\N{REPLACEMENT CHARACTER}" not in text:
        assert not any("\N{REPLACEMENT CHARACTER}" in part for part in told)


def test_what_stays_incomplete_is_told_at_the_end():
    growing = GrowingText(cast(Tokenizer, ByteTokenizer()))
    assert growing.add(0x61) == "a"
    assert growing.add(0xE2) == growing.add(0x82) == ""
    assert growing.end() == "\N{REPLACEMENT CHARACTER}"
