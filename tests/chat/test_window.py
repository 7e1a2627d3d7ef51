"""Histories that do not fit the window lose whole turns, the oldest first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_jax.chat.chatglm import chatglm_prompt
from glm_jax.chat.model import ChatForm
from glm_jax.chat.turns import Turn
from glm_jax.errors import UsageError
from tests.tokenizer.chatglm_stand_in import stand_in_tokenizer

TURN = st.builds(Turn, st.text(alphabet="ab ", max_size=9), st.text(alphabet="xy ", max_size=9))


@given(st.lists(TURN, max_size=8), st.integers(40, 300))
def test_as_many_turns_stay_as_fit(history, window):
    tokenizer = stand_in_tokenizer()
    form = ChatForm(tokenizer)
    reserve = max(1, window // 16)

    def length(dropped: int) -> int:
        return len(tokenizer.encode_prompt(chatglm_prompt(history[dropped:], "q")))

    try:
        fitted = form.fit(history, "q", window=window)
    except UsageError:
        assert length(len(history)) >= window
        return
    assert fitted.num_tokens == length(fitted.num_dropped)
    assert fitted.max_new_tokens == window - fitted.num_tokens
    if fitted.num_dropped < len(history):
        assert fitted.num_tokens + reserve <= window
    if fitted.num_dropped:
        assert length(fitted.num_dropped - 1) + reserve > window


def test_the_note_says_how_many():
    form = ChatForm(stand_in_tokenizer())
    history = [Turn("a", "b")] * 5
    assert form.fit(history, "q", window=2048).note is None
    full = form.fit(history, "q", window=2048).num_tokens
    note = form.fit(history, "q", window=full).note
    assert note is not None and "left out" in note
    # The answer's own maximum is kept free, but no more than half of the window.
    assert form.fit(history, "q", window=full + 4, max_new_tokens=4).num_dropped == 0
    assert form.fit(history, "q", window=full + 4, max_new_tokens=5).num_dropped == 1


def test_a_query_that_does_not_fit_is_refused():
    form = ChatForm(stand_in_tokenizer())
    with pytest.raises(UsageError, match=r"the prompt has .* tokens, but the window"):
        form.fit([Turn("a", "b")], "x y z " * 30, window=40)


def test_text_is_literal_where_asked():
    tokenizer = stand_in_tokenizer()
    form = ChatForm(tokenizer)
    special = tokenizer.special
    literal = form.fit([], "a [MASK] <eop>", window=100, special_tokens=False).prompt
    assert special["eop"] not in literal.ids and special["MASK"] not in literal.ids
    read = form.fit([], "a [MASK] <eop>", window=100).prompt
    assert special["eop"] in read.ids and special["MASK"] in read.ids
    # The mask that is answered is the last, [gMASK].
    assert read.masks == [len(read.ids) - 1]
