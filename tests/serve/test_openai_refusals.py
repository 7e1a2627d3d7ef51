"""Malformed requests get a status and one sentence, and leave the server as it was."""

from __future__ import annotations

from typing import Any

import pytest

from tests.serve.openai_client import MODEL
from tests.serve.running import Running, serving

USER = {"role": "user", "content": "hi"}


@pytest.fixture(scope="module")
def server(filler):
    with serving(filler) as running:
        yield running


def refused(server: Running, path: str, body: dict[str, Any], part: str, param: str) -> None:
    response = server.post(path, {"model": MODEL, **body})
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert part in error["message"] and error["param"] == param
    assert error["type"] == "invalid_request_error" and set(error) >= {"code", "message"}
    assert server.metric("glm_queue_length") == 0


@pytest.mark.parametrize(
    ("body", "part", "param"),
    [
        ({}, "messages must be a list", "messages"),
        ({"messages": []}, "messages must be a list", "messages"),
        ({"messages": ["hi"]}, "messages[0] must be an object", "messages[0]"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "role is 'tool'", "messages[0]"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "role is", "messages[0]"),
        ({"messages": [{"role": "user"}]}, "must be text", "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "not text",
            "messages[0].content",
        ),
        ({"messages": [USER, {"role": "assistant", "content": "x"}]}, "the user's", "messages"),
        ({"messages": [{"role": "system", "content": "x"}]}, "the user's", "messages"),
        ({"messages": [USER], "temperature": 3}, "temperature is 3", "temperature"),
        ({"messages": [USER], "temperature": "hot"}, "temperature is 'hot'", "temperature"),
        ({"messages": [USER], "top_p": -1}, "top_p is -1", "top_p"),
        ({"messages": [USER], "n": 0}, "n is 0", "n"),
        ({"messages": [USER], "n": 5}, "from 1 to 4", "n"),
        ({"messages": [USER], "n": True}, "n is True", "n"),
        ({"messages": [USER], "max_tokens": 0}, "max_tokens is 0", "max_tokens"),
        ({"messages": [USER], "seed": 1.5}, "seed is 1.5", "seed"),
        ({"messages": [USER], "stop": ""}, "none of them empty", "stop"),
        ({"messages": [USER], "stop": list("abcde")}, "at most 4", "stop"),
        ({"messages": [USER], "stream": "yes"}, "stream is 'yes'", "stream"),
        ({"messages": [USER], "stream_options": {}, "stream": 1}, "stream is 1", "stream"),
        (
            {"messages": [USER], "stream_options": {"include_usage": True}},
            "needs stream",
            "stream_options",
        ),
        ({"messages": [USER], "top_logprobs": 2}, "needs logprobs", "top_logprobs"),
        ({"messages": [USER], "logprobs": True, "top_logprobs": 4}, "from 0 to 3", "top_logprobs"),
        ({"messages": [USER], "tools": [{}]}, "tools is not supported", "tools"),
        ({"messages": [USER], "presence_penalty": 1}, "not supported", "presence_penalty"),
        ({"messages": [USER], "tempratur": 1}, "there is no field 'tempratur'", "tempratur"),
        ({"messages": [{"role": "user", "content": "x" * 99}]}, "only 64", "messages"),
    ],
)
def test_malformed_conversations(server: Running, body, part, param):
    refused(server, "/v1/chat/completions", body, part, param)


@pytest.mark.parametrize(
    ("body", "part", "param"),
    [
        ({}, "prompt must be a string", "prompt"),
        ({"prompt": []}, "prompt must be a string", "prompt"),
        ({"prompt": [1, "a"]}, "prompt must be a string", "prompt"),
        ({"prompt": [[]]}, "prompt must be a string", "prompt"),
        ({"prompt": [999]}, "the tokens are 0 to", "prompt"),
        ({"prompt": [[1, -1]]}, "the tokens are 0 to", "prompt"),
        ({"prompt": ["a"] * 65}, "65 prompts", "prompt"),
        ({"prompt": ["a"] * 20, "n": 4}, "prompts times n", "n"),
        ({"prompt": "a", "logprobs": 9}, "from 0 to 3", "logprobs"),
        ({"prompt": "a", "echo": True}, "echo is not supported", "echo"),
        ({"prompt": "x" * 99}, "only 64", "prompt"),
    ],
)
def test_malformed_continuations(server: Running, body, part, param):
    refused(server, "/v1/completions", body, part, param)


def test_what_openai_sends_by_default_is_accepted(server: Running):
    body = {
        "model": MODEL,
        "messages": [{**USER, "name": "me"}],
        "max_tokens": 1,
        "tools": None,
        "tool_choice": "none",
        "logit_bias": {},
        "frequency_penalty": 0.0,
        "response_format": {"type": "text"},
        "user": "me",
        "stop": None,
    }
    assert server.post("/v1/chat/completions", body).status_code == 200


def test_bodies_that_are_no_request(server: Running):
    json_type = {"Content-Type": "application/json"}
    for content, status in ((b"{", 400), (b"[]", 400), (b"\xff", 400), (b"x" * 30_000, 413)):
        response = server.post_bytes("/v1/chat/completions", content, json_type)
        assert response.status_code == status and response.json()["error"]["message"]
    half = b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}'
    response = server.post_bytes("/v1/chat/completions", half, json_type)
    assert response.status_code == 400 and "surrogate" in response.json()["error"]["message"]
    response = server.post_bytes("/v1/chat/completions", b"{}", {"Content-Type": "text/plain"})
    assert response.status_code == 415
    assert server.post("/v1/chat/completions", {"messages": [USER]}).status_code == 400
    assert server.post("/v1/completions", {"model": 3, "prompt": "a"}).status_code == 400
    assert server.get("/v1/chat/completions").status_code == 405
    assert server.get("/v1/chat").status_code == 404
