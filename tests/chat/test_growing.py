"""Text that is sent while it grows is never taken back, whatever the tokens are."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_jax.chat.chatglm import process_answer, settled_answer
from glm_jax.chat.clean_up import settled_clean_up
from glm_jax.chat.growing import DecodedText, GrowingAnswer
from glm_jax.chat.model import ChatForm
from glm_jax.tokenizer.chatglm import cleaned
from tests.tokenizer.chatglm_stand_in import stand_in_tokenizer

PIECES = (
    *(" ", "  ", " '", "'", " n", "n't", "'s", " ?", ".", "!", ",", "re", "ve", "x"),
    *(
        "中",
        "文",
        "：",
        ":",
        ";",
        "[[",
        "训练",
        "时间",
        "]]",
        "<",
        "n",
        ">",
        "<|",
        "tab",
        "|>",
        "\n",
    ),
)
TEXTS = st.lists(st.sampled_from(PIECES), max_size=14)
IDS = st.lists(st.integers(0, stand_in_tokenizer().padded_vocab_size - 1), max_size=20)


@settings(max_examples=300)
@given(st.text(alphabet=" '?.nt'svx", max_size=14))
def test_what_the_clean_up_settles_stays(text):
    full = cleaned(text)
    assert all(full.startswith(settled_clean_up(text[:end])) for end in range(len(text)))


@given(TEXTS)
def test_what_settles_of_an_answer_stays(pieces):
    raw = "".join(pieces)
    answers = [process_answer(cleaned(raw))]
    for end in range(len(pieces)):
        settled = settled_answer("".join(pieces[:end]))
        # Pieces of whitespace are replaced when tokens are decoded, before this.
        if "<n>" not in raw and "<|tab|>" not in raw:
            assert answers[0].startswith(settled)


@pytest.mark.parametrize("kind", ["answer", "continuation"])
@given(ids=IDS)
def test_any_tokens_add_up_to_the_complete_text(kind, ids):
    shown = getattr(ChatForm(stand_in_tokenizer()), kind)
    growing = GrowingAnswer(shown)
    pieces = [growing.add(id) for id in ids]
    assert "".join([*pieces, growing.end()]) == shown.complete(ids) == growing.text


@given(st.text(alphabet="<n>|tab_2lk ", max_size=24))
def test_text_of_whitespace_pieces_adds_up(text):
    tokenizer = stand_in_tokenizer()
    ids = [id for character in text for id in tokenizer.encode_text(character)]
    shown = ChatForm(tokenizer).continuation
    growing = GrowingAnswer(shown)
    pieces = [growing.add(id) for id in ids]
    assert "".join([*pieces, growing.end()]) == shown.complete(ids)


class Letters:
    """A token is a letter."""

    def complete(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode()

    def settled(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode()


@given(
    st.text(alphabet="abc", max_size=16),
    st.lists(st.text(alphabet="abc", min_size=1, max_size=4), max_size=3),
)
def test_an_answer_is_what_is_before_the_stop_string_that_ends_first(text, stops):
    growing = GrowingAnswer(Letters(), stops)
    told = "".join(growing.add(ord(letter)) for letter in text) + growing.end()
    for end in range(len(text) + 1):
        found = [text[:end].find(stop) for stop in stops if stop in text[:end]]
        if found:
            assert told == text[: min(found)] and growing.stopped
            assert len(growing.ids) == end
            return
    assert told == text and not growing.stopped


def test_nothing_is_added_after_a_stop():
    growing = GrowingAnswer(Letters(), ["b"])
    assert [growing.add(ord(letter)) for letter in "abc"] == ["a", "", ""]
    assert growing.end() == "" and growing.text == "a"


@given(st.text(max_size=12))
def test_characters_of_several_tokens_come_complete(text):
    growing = GrowingAnswer(DecodedText(lambda ids: bytes(ids).decode(errors="replace")))
    told = [growing.add(byte) for byte in text.encode()]
    if "\N{REPLACEMENT CHARACTER}" not in text:
        assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in told)
    assert "".join([*told, growing.end()]) == text
