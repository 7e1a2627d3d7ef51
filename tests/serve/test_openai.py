"""Conversations and continuations through OpenAI's own client."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from glm_jax.chat.session import ChatSession
from glm_jax.chat.settings import ChatSettings
from glm_jax.chat.turns import Turn
from tests.serve.openai_client import MODEL, client_of
from tests.serve.running import Running, serving, wait_until

openai = pytest.importorskip("openai")

GREEDY = {"temperature": 0}
USER: Any = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def server(filler):
    with serving(filler) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Running):
    with client_of(server) as made:
        yield made


@pytest.fixture(scope="module")
def ask(client):
    """The answer to messages, greedily by default."""

    def asked(messages: Any = USER, **options: Any) -> Any:
        options = GREEDY | options
        return client.chat.completions.create(model=MODEL, messages=messages, **options)

    return asked


@pytest.fixture(scope="module")
def continued(client):
    """The continuation of a prompt, greedily by default."""

    def asked(prompt: Any = "abc", **options: Any) -> Any:
        options = GREEDY | {"max_tokens": 16} | options
        return client.completions.create(model=MODEL, prompt=prompt, **options)

    return asked


def streamed(stream: Any) -> tuple[str, Any]:
    """The text of a stream with one answer, and its last chunk with a choice."""
    text, last = "", None
    for chunk in stream:
        for choice in chunk.choices:
            added = choice.delta.content if hasattr(choice, "delta") else choice.text
            text += added or ""
            last = choice
    return text, last


def test_answer_is_the_one_of_the_library(ask, filler):
    reply = ChatSession(filler).answer([], "hi", ChatSettings(temperature=0))
    answer = ask()
    [choice] = answer.choices
    assert choice.message.content == reply.text and choice.message.role == "assistant"
    assert choice.finish_reason == ("stop" if reply.complete else "length")
    usage = answer.usage
    assert usage.completion_tokens == len(reply.ids) > 0
    assert usage.prompt_tokens == reply.num_prompt_tokens
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert answer.model == MODEL and answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")


def test_history_and_system_message_are_in_the_prompt(ask, filler):
    history = [Turn("a", "b")]
    reply = ChatSession(filler).answer(history, "c", ChatSettings(temperature=0))
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": [{"type": "text", "text": "c"}]},
    ]
    assert ask(messages).choices[0].message.content == reply.text
    assert ask(messages).usage.prompt_tokens == reply.num_prompt_tokens
    longer = ask([{"role": "system", "content": "sys"}, *messages[2:]]).usage.prompt_tokens
    assert longer == ask(messages[2:]).usage.prompt_tokens + len("sys\n")


@pytest.mark.parametrize("options", [{}, {"temperature": 1.3, "top_p": 0.9, "seed": 7}])
def test_a_stream_gives_the_same_answer(ask, options):
    answer = ask(**options)
    text, last = streamed(ask(stream=True, **options))
    assert text == answer.choices[0].message.content != ""
    assert last.finish_reason == answer.choices[0].finish_reason


def test_a_stream_counts_tokens_only_when_asked(ask):
    usage = ask().usage
    *chunks, last = list(ask(stream=True, stream_options={"include_usage": True}))
    assert last.usage == usage and last.choices == []
    assert all(chunk.usage is None for chunk in chunks)
    assert all(chunk.usage is None for chunk in ask(stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"


def test_characters_of_several_tokens_come_complete(continued):
    """The tiny network writes ü, which are two tokens, and sometimes one of them alone."""
    options = {"temperature": 2.0, "top_p": 1.0, "max_tokens": 40, "extra_body": {"top_k": 0}}
    for seed in range(4):
        [full] = continued("ü", seed=seed, **options).choices
        chunks = [chunk.choices for chunk in continued("ü", seed=seed, stream=True, **options)]
        texts = [choice.text for choices in chunks for choice in choices]
        assert "".join(texts) == full.text
        assert "".join(texts).count("ü") == sum(text.count("ü") for text in texts)
        if "\N{REPLACEMENT CHARACTER}" not in full.text:
            assert not any("\N{REPLACEMENT CHARACTER}" in text for text in texts)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_ends_before_a_stop_string_across_tokens(continued, stream):
    full = continued(max_tokens=30).choices[0].text
    for start in (0, 2, 5):
        stop = full[start : start + 3]
        expected = full[: full.find(stop)]
        answer = continued(max_tokens=30, stop=["never", stop], stream=stream)
        if stream:
            text, last = streamed(answer)
            assert text == expected and last.finish_reason == "stop"
        else:
            assert answer.choices[0].text == expected
            assert answer.choices[0].finish_reason == "stop"
            assert answer.usage.completion_tokens < 30


def test_a_stop_string_that_only_starts_is_text(continued):
    full = continued().choices[0].text
    stop = full[-1] + "\x00"
    text, last = streamed(continued(stop=stop, stream=True))
    assert text == full == continued(stop=stop).choices[0].text
    assert last.finish_reason != "stop" or full == continued(max_tokens=64).choices[0].text


def test_a_stopped_answer_frees_its_row_at_once(server: Running, continued, slow_steps):
    full = continued(max_tokens=40).choices[0].text
    before = server.metric("glm_tokens_generated_total")
    continued(max_tokens=40, stop=full[1:3])
    wait_until(lambda: server.metric("glm_rows_in_use") == 0)
    assert server.metric("glm_tokens_generated_total") - before < 15


def test_samples_are_drawn_with_the_seed(ask):
    options = {"n": 3, "temperature": 1.5, "top_p": 1.0, "seed": 11}
    answer = ask(**options)
    texts = [choice.message.content for choice in answer.choices]
    assert [choice.index for choice in answer.choices] == [0, 1, 2] and len(set(texts)) > 1
    assert [choice.message.content for choice in ask(**options).choices] == texts
    by_index = {0: "", 1: "", 2: ""}
    for chunk in ask(stream=True, **options):
        for choice in chunk.choices:
            by_index[choice.index] += choice.delta.content or ""
    assert list(by_index.values()) == texts
    # A prompt counts once, whatever number of answers it has.
    assert answer.usage.prompt_tokens == ask().usage.prompt_tokens


def test_without_a_seed_answers_differ(ask):
    options = {"temperature": 2.0, "top_p": 1.0, "extra_body": {"top_k": 0}}
    texts = {ask(**options).choices[0].message.content for _ in range(6)}
    assert len(texts) > 1


@pytest.mark.parametrize("stream", [False, True])
def test_probabilities_of_tokens(ask, stream):
    answer = ask(logprobs=True, top_logprobs=3, max_tokens=6, stream=stream)
    chunks = list(answer) if stream else [answer]
    content = [
        token
        for chunk in chunks
        for choice in chunk.choices
        if choice.logprobs
        for token in choice.logprobs.content
    ]
    text = streamed(iter(chunks))[0] if stream else answer.choices[0].message.content
    assert len(content) == 6
    assert b"".join(bytes(token.bytes) for token in content).decode() == text
    for token in content:
        values = [one.logprob for one in token.top_logprobs]
        assert values == sorted(values, reverse=True) and len(values) == 3
        # Greedy: the token is the most probable one.
        assert token.token == token.top_logprobs[0].token
        assert token.logprob == pytest.approx(values[0], abs=1e-5)


def test_probabilities_of_a_continuation(continued):
    answer = continued(logprobs=2, max_tokens=5).choices[0]
    assert "".join(answer.logprobs.tokens) == answer.text
    assert answer.logprobs.text_offset == [0, 1, 2, 3, 4]
    assert all(len(top) == 2 for top in answer.logprobs.top_logprobs)
    assert continued(max_tokens=5).choices[0].logprobs is None


def test_several_prompts_texts_or_ids(continued, filler):
    encode = filler.tokenizer.encode_text
    singles = [continued(text).choices[0].text for text in ("abc", "xyz")]
    for prompts in (["abc", "xyz"], [encode("abc"), encode("xyz")]):
        answer = continued(prompts)
        assert [choice.text for choice in answer.choices] == singles
    assert continued(encode("abc")).choices[0].text == singles[0]
    twice = continued(["abc", "xyz"], n=2)
    assert [choice.index for choice in twice.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in twice.choices] == [text for text in singles for _ in "12"]


def test_text_of_users_is_no_special_token_unless_asked_for(ask):
    messages = [{"role": "user", "content": "a<|endofpiece|>[MASK]"}]
    literal = ask(messages).usage.prompt_tokens
    special = ask(messages, extra_body={"special_tokens": True}).usage.prompt_tokens
    assert literal - special == len("<|endofpiece|>[MASK]") - 2


def test_a_long_history_loses_its_first_turns_with_a_note(ask):
    turns = [
        message
        for _ in range(6)
        for message in (
            {"role": "user", "content": "what now"},
            {"role": "assistant", "content": "and so on"},
        )
    ]
    answer = ask([*turns, *USER], max_tokens=8)
    assert "turns were left out" in answer.note
    assert answer.usage.prompt_tokens + 8 <= 64
    assert not hasattr(ask(max_tokens=8), "note")


def test_an_answer_ends_at_the_window_or_its_own_maximum(ask):
    answer = ask(max_tokens=3)
    assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 3
    assert ask(max_completion_tokens=2).usage.completion_tokens == 2
    messages = [{"role": "user", "content": "x" * 38}]
    answer = ask(messages, temperature=1.5, seed=1)
    assert answer.usage.total_tokens <= 64


def test_models(client, server: Running):
    [model] = client.models.list().data
    assert model.id == MODEL and model.max_model_len == 64
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_clients_that_leave_free_their_rows(server: Running, ask, slow_steps):
    for _ in range(6):  # more than there are rows
        stream = ask(stream=True, max_tokens=40, n=2)
        next(stream)
        stream.close()
    with contextlib.suppress(openai.APITimeoutError):
        ask(max_tokens=40, timeout=0.2)
    wait_until(lambda: server.metric("glm_rows_in_use") == 0)
    assert server.metric("glm_queue_length") == 0
    assert ask(max_tokens=2).usage.completion_tokens == 2


def test_errors_are_the_classes_of_the_client(client, server: Running, filler):
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="other", messages=USER)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as long:
        client.completions.create(model=MODEL, prompt="x" * 100)
    assert long.value.code == "context_length_exceeded" and "only 64" in long.value.message
    with serving(filler, token="secret") as guarded:
        with client_of(guarded, "wrong") as other, pytest.raises(openai.AuthenticationError):
            other.models.list()
        with client_of(guarded, "secret") as other:
            assert other.models.list().data


def test_more_requests_than_may_wait_are_refused_with_429(filler, slow_steps):
    import dataclasses

    from tests.serve.running import SETTINGS

    with (
        serving(filler, dataclasses.replace(SETTINGS, queue=1)) as small,
        client_of(small) as client,
        small.busy(),
    ):
        with pytest.raises(openai.RateLimitError):
            client.chat.completions.create(model=MODEL, messages=USER, n=2)
        # Those of its jobs that had a place have left it.
        assert small.metric("glm_queue_length") == 0
