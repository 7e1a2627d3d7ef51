"""Prompts and answers recorded from the published model's chat."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glm_jax.chat.chatglm import chatglm_prompt, process_answer
from glm_jax.chat.growing import GrowingAnswer
from glm_jax.chat.model import ChatForm
from glm_jax.tokenizer import load_tokenizer
from glm_jax.tokenizer.chatglm import ChatGLMTokenizer
from tests.chat.chatglm_recipe import turns


@pytest.fixture(scope="module")
def tokenizer(shared: Path) -> ChatGLMTokenizer:
    made = load_tokenizer("chatglm", shared / "vocabs" / "ice_text.model")
    assert isinstance(made, ChatGLMTokenizer)
    return made


def test_prompts(golden, tokenizer):
    assert len(golden["prompts"]) == 30
    for row in golden["prompts"]:
        prompt = chatglm_prompt(turns(row["history"]), row["query"])
        assert prompt == row["prompt"]
        assert tokenizer.encode_prompt(prompt) == row["input_ids"]


def test_prompts_of_the_stand_in_golden(shared):
    info = json.loads((shared / "goldens/i_chatglm/info.json").read_text())
    for history, prompt in zip(info["chat_histories"], info["chat_prompts"], strict=True):
        assert chatglm_prompt(turns(history), info["chat_query"]) == prompt
    for text, answer in info["process_response"]:
        assert process_answer(text) == answer


def test_processed_answers(golden):
    for row in golden["process_response"]:
        assert process_answer(row["text"]) == row["response"], row


def test_prompts_have_the_recorded_tokens_and_all_turns(golden, tokenizer):
    form = ChatForm(tokenizer)
    for row in golden["prompts"]:
        fitted = form.fit(turns(row["history"]), row["query"], window=4096)
        prompt = fitted.prompt
        ids = [*prompt.ids, tokenizer.special["sop"], *prompt.written]
        assert ids == row["input_ids"] and fitted.num_tokens == len(ids)
        assert fitted.num_dropped == 0 and fitted.max_new_tokens == 4096 - len(ids)


def test_answers_as_tokens_arrive(golden, tokenizer):
    """Ours are the published ones without what later tokens change, and end the same."""
    shown = ChatForm(tokenizer).answer
    for row in golden["stream_of_ids"]:
        *ids, end = row["ids"]
        assert end == tokenizer.special["eop"]
        growing = GrowingAnswer(shown)
        for id, response in zip(ids, row["responses"], strict=True):
            growing.add(id)
            assert process_answer(response).startswith(growing.text)
            assert "\N{REPLACEMENT CHARACTER}" not in growing.text
        growing.end()
        assert growing.text == row["responses"][-1]
