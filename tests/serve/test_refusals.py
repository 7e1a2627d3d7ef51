"""Requests that are refused: with which status, and in one sentence."""

from __future__ import annotations

import json
import socket

import pytest

from tests.conftest import HANG_SECONDS
from tests.serve.running import SETTINGS, Running, serving

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def server(filler):
    with serving(filler) as running:
        yield running


def assert_refused(response, status: int, part: str, field: str | None = None) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert part in error["message"] and error["field"] == field
    assert "Traceback" not in response.text and "\n" not in error["message"]
    assert len(error["message"]) <= 310


@pytest.mark.parametrize(
    ("body", "part", "field"),
    [
        ({}, "missing", "text"),
        ({"text": 3}, "must be a string", "text"),
        ({"text": None}, "must be a string", "text"),
        ({"text": "a", "colour": 1}, "no field 'colour'", "colour"),
        ({"text": "a", "\ud800": 1}, "no field", "\ud800"),
        ({"text": "a", "x" * 5000: 1}, "no field", "x" * 100),
        ({"text": "a", "stream": 1}, "true or false", "stream"),
        ({"text": "a", "top": 4}, "from 0 to 3", "top"),
        ({"text": "a", "top": True}, "from 0 to 3", "top"),
        ({"text": "a", "temperature": "hot"}, "number from 0 to 100", "temperature"),
        ({"text": "a", "temperature": -1}, "number from 0 to 100", "temperature"),
        ({"text": "a", "top_p": 2}, "from 0 to 1", "top_p"),
        ({"text": "a", "max_blank_length": 0}, "positive", "max_blank_length"),
        ({"text": "a", "max_blank_length": 2.5}, "positive", "max_blank_length"),
        ({"text": "a", "seed": -1}, "seed", "seed"),
        ({"text": "a", "repeat_scope": ["text"]}, "blank, text", "repeat_scope"),
        ({"text": "a", "samples": 5}, "allows 4", "samples"),
        ({"text": "a", "beams": 5}, "allows 4", "beams"),
        ({"text": "a", "beams": 2, "top_k": 3}, "draws nothing", "beams"),
        ({"text": "a", "beams": 2, "stream": True}, "only for one beam", "stream"),
        ({"text": "a", "beams": 2, "top": 1}, "only for one beam", "top"),
        ({"text": "a" * 100}, "positions only for 65", "text"),
        ({"text": "[MASK]" * 20}, "slots, but this server has 1024", "text"),
        ({"text": "[MASK]" * 20, "beams": 2}, "slots, but this server has 1024", "text"),
    ],
)
def test_bad_fields_of_fill(server: Running, body, part, field):
    response = server.get("/health")  # the server is there after every refusal
    assert response.status_code == 200
    content = json.dumps(body).encode()
    response = server.post_bytes("/v1/fill", content, JSON)
    assert_refused(response, 400, part, field)


@pytest.mark.parametrize(
    ("body", "part", "field"),
    [
        ({"text": "a [MASK]"}, "list of answers", "answers"),
        ({"text": "a [MASK]", "answers": "b"}, "list of answers", "answers"),
        ({"text": "a [MASK]", "answers": []}, "list of answers", "answers"),
        ({"text": "a [MASK]", "answers": [1]}, "list of answers", "answers"),
        ({"text": "a [MASK]", "answers": [["a", 1]]}, "list of answers", "answers"),
        ({"text": "a [MASK]", "answers": [["a", "b"]]}, "1 blanks", "answers"),
        ({"text": "a [MASK]", "answers": ["a"] * 6}, "allows 5", "answers"),
        ({"text": "a [MASK]", "answers": ["a" * 65]}, "65 tokens", None),
        ({"text": "a [MASK]", "answers": ["a" * 2000]}, "slots", "answers"),
        ({"text": "a" * 100, "answers": ["a"]}, "positions only for 65", "text"),
        ({"text": "a [MASK]", "answers": ["a"], "seed": 1}, "no field 'seed'", "seed"),
    ],
)
def test_bad_fields_of_score(server: Running, body, part, field):
    assert_refused(server.post("/v1/score", body), 400, part, field)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"text": "a", "top_p": NaN}', "NaN is no JSON"),
        (b'{"text": "a", "top_p": -Infinity}', "-Infinity is no JSON"),
        (b'{"text": "\xff"}', "not UTF-8"),
        (b"[1]", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
        (b"[" * 15_000, "nested"),
        (b'{"text": "a", "seed": ' + b"9" * 6000 + b"}", "not JSON"),
    ],
)
def test_bodies_that_are_no_json_object(server: Running, content, part):
    assert_refused(server.post_bytes("/v1/fill", content, JSON), 400, part)


def test_a_number_too_large_for_a_float_is_refused(server: Running):
    response = server.post_bytes("/v1/fill", b'{"text": "a", "temperature": 1e999}', JSON)
    assert_refused(response, 400, "temperature is inf", "temperature")


def test_wrong_content_paths_and_methods(server: Running):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert_refused(server.post_bytes("/v1/fill", b"{}", form), 415, "application/json")
    assert_refused(server.get("/v1/nothing"), 404, "nothing at this path")
    wrong = server.get("/v1/fill")
    assert_refused(wrong, 405, "does not take GET")
    assert wrong.headers["allow"] == "POST"
    assert_refused(server.post("/health", {}), 405, "does not take POST")


def test_a_body_that_is_too_large_is_refused_before_it_is_there(server: Running):
    exact = b'{"text": "' + b"a" * (SETTINGS.max_body - 12) + b'"}'
    assert len(exact) == SETTINGS.max_body
    assert_refused(server.post_bytes("/v1/fill", exact, JSON), 400, "positions", "text")
    announced = b"Content-Length: 1000000000\r\n\r\n"
    chunked = b"Transfer-Encoding: chunked\r\n\r\n" + b"5000\r\n" + b" " * 0x5000 + b"\r\n"
    for rest in (announced, chunked):  # neither ends its body
        answer = raw_answer(server, rest)
        assert answer.startswith(b"HTTP/1.1 413 ") and b"more than 20000 bytes" in answer
    assert server.get("/health").status_code == 200


def raw_answer(server: Running, rest: bytes) -> bytes:
    """What the server says to a request whose last header and body are given, until it closes."""
    host, port = server.url.removeprefix("http://").split(":")
    head = b"POST /v1/fill HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port)), timeout=HANG_SECONDS) as connection:
        connection.sendall(head + rest)
        answer = b""
        while part := connection.recv(4096):
            answer += part
    return answer


def test_a_body_that_does_not_come_is_not_waited_for(server: Running, monkeypatch):
    monkeypatch.setattr("glm_jax.serve.requests.BODY_SECONDS", 0.2)
    assert raw_answer(server, b'Content-Length: 20\r\n\r\n{"te').startswith(b"HTTP/1.1 408 ")


def test_without_the_token_only_the_page_and_the_health_answer(filler):
    with serving(filler, token="secret-1") as server:
        for path in ("/metrics", "/v1/model", "/no/such/path"):
            response = server.get(path)
            assert_refused(response, 401, "token")
            assert response.headers["www-authenticate"] == "Bearer"
        body = {"text": "a [MASK]", "max_blank_length": 1}
        for given in ("Bearer wrong", "Bearer secret-1x", "Basic secret-1", "secret-1", "Bearer"):
            response = server.post("/v1/fill", body, headers={"Authorization": given})
            assert_refused(response, 401, "token")
        for path in ("/", "/health"):
            assert server.get(path).status_code == 200
        right = {"Authorization": "bearer secret-1"}
        assert server.post("/v1/fill", body, headers=right).status_code == 200
        assert server.get("/metrics", headers=right).status_code == 200
        assert "secret" not in server.log.getvalue()


def test_names_of_other_machines_are_refused_where_only_this_one_is_served(filler):
    with serving(filler, local_only=True) as server:
        for host in ("localhost", "127.0.0.1:80", "[::1]:8000", "LOCALHOST:1"):
            assert server.get("/health", headers={"Host": host}).status_code == 200
        for host in ("attacker.example", "localhost.attacker.example:80", "127.0.0.1.example"):
            response = server.get("/health", headers={"Host": host})
            assert_refused(response, 421, "names of this machine")
