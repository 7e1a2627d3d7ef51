"""Text of tokens in place, where a token is no character and reads differently at a beginning."""

from __future__ import annotations

import itertools
import pydoc_data.topics
from collections.abc import Sequence
from typing import cast

import pytest

from glm_jax.generate.prompt import stretches
from glm_jax.serve.jobs import Token
from glm_jax.serve.responses import StreamedText
from glm_jax.tokenizer import Tokenizer, train_sentencepiece
from glm_jax.tokenizer.streaming import CONTEXT, text_in_place, texts_in_place, without_incomplete
from tests.serve.tiny_checkpoint import byte_tokenizer

TEXT = "Grüße, 你好 🎉 and so on: naïve façades, 3 × 4 = 12."


@pytest.fixture(scope="module")
def pieces(tmp_path_factory) -> Tokenizer:
    texts = [text for _, text in sorted(pydoc_data.topics.topics.items())][:20]
    return train_sentencepiece(texts, tmp_path_factory.mktemp("pieces") / "t", vocab_size=400)


@pytest.fixture(scope="module", params=["bytes", "pieces"])
def tokenizer(request, pieces) -> Tokenizer:
    return byte_tokenizer() if request.param == "bytes" else pieces


def test_the_texts_of_all_tokens_make_up_the_text_wherever_it_is_cut(tokenizer):
    ids = tokenizer.encode(TEXT)
    assert len(ids) > CONTEXT
    assert "".join(texts_in_place(tokenizer, [], ids)) == tokenizer.decode(ids)
    for cut in range(len(ids) + 1):
        before, after = ids[:cut], ids[cut:]
        assert "".join(texts_in_place(tokenizer, before, after)) == text_in_place(
            tokenizer, before, after
        )


def test_a_character_of_several_tokens_comes_whole_with_the_last_of_them(tokenizer):
    ids = tokenizer.encode("a 你好")
    texts = texts_in_place(tokenizer, [], ids)
    assert "".join(texts) == "a 你好"
    assert all("\N{REPLACEMENT CHARACTER}" not in text for text in texts)
    assert [text for text in texts if text.strip()] == ["a", "你", "好"]


class Words:
    """Puts a space between tokens, and so none before the first."""

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(["returns", "a", "value"][id] for id in ids)


def test_a_word_in_the_middle_keeps_the_space_before_it():
    words = cast(Tokenizer, Words())
    assert text_in_place(words, [0, 1], [2]) == " value"
    assert texts_in_place(words, [0], [1, 2]) == [" a", " value"]
    assert texts_in_place(words, [], [1, 2]) == ["a", " value"]


def test_stretches_are_what_stands_between_masks():
    assert list(stretches([1, 9, 2, 3, 8, 9], frozenset({8, 9}))) == [[1], [2, 3], [], []]
    assert list(stretches([], frozenset({9}))) == [[]]


def test_the_text_so_far_never_shows_a_part_of_a_character(filler):
    blank = "über 你好 🎉"
    ids = filler.tokenizer.encode(blank)
    streamed = StreamedText(filler, filler.tokenizer.encode("Sag [MASK] jetzt"), 1)
    assert streamed.start() == {"parts": ["Sag", " jetzt"]}
    events = [
        streamed.token(Token(0, 0, id, -1.0, place == len(ids) - 1)) for place, id in enumerate(ids)
    ]
    texts = [event["text"] for event in events]
    assert texts[-1] == events[-1]["in_place"] == blank
    assert all(blank.startswith(text) for text in texts)
    assert all(later.startswith(text) for text, later in itertools.pairwise(texts))


def test_only_what_is_incomplete_at_the_end_is_held_back():
    lost = "\N{REPLACEMENT CHARACTER}"
    assert without_incomplete(f"a{lost}b{lost}{lost}") == f"a{lost}b"
