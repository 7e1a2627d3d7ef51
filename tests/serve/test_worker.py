"""Clients that leave, queues that fill up, faults, and the end of a server."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from glm_jax.generate.engine import Engine
from glm_jax.generate.fill import Filler
from glm_jax.generate.settings import Sampling
from tests.conftest import HANG_SECONDS
from tests.serve.running import SETTINGS, Running, read_events, serving, wait_until

LONG = {"text": "The [MASK] of [MASK].", "max_blank_length": 60, "min_blank_length": 60}


@pytest.fixture(scope="module")
def server(filler):
    with serving(filler) as running:
        yield running


def in_use(server: Running) -> float:
    return server.metric("glm_rows_in_use")


@pytest.mark.usefixtures("slow_steps")
def test_a_client_that_leaves_in_mid_stream_gives_its_rows_back(server: Running):
    body = {**LONG, "stream": True, "samples": 3}
    before = server.metric("glm_tokens_generated_total")
    with httpx2.stream(
        "POST", server.url + "/v1/fill", json=body, timeout=HANG_SECONDS
    ) as response:
        names = (name for name, _ in read_events(response.iter_lines()))
        assert [next(names), next(names)] == ["start", "token"]
        assert in_use(server) == 3
    wait_until(lambda: in_use(server) == 0)
    assert server.metric("glm_tokens_generated_total") - before < 3 * 60
    wait_until(lambda: "POST /v1/fill 499" in server.log.getvalue())


@pytest.mark.usefixtures("slow_steps")
def test_a_client_that_leaves_while_it_waits_for_the_whole_gives_its_rows_back(server: Running):
    before = server.metric("glm_tokens_generated_total")
    with pytest.raises(httpx2.TimeoutException):
        httpx2.post(server.url + "/v1/fill", json=LONG, timeout=0.5)
    wait_until(lambda: in_use(server) == 0)
    assert server.metric("glm_tokens_generated_total") - before < 2 * 60


def test_a_full_queue_refuses_and_says_when_to_come_back(filler):
    settings = dataclasses.replace(SETTINGS, queue=1)
    body = {"text": "a [MASK]", "max_blank_length": 2}
    with serving(filler, settings) as server, ThreadPoolExecutor() as pool:
        with server.busy():
            waiting = pool.submit(server.post, "/v1/fill", body)
            wait_until(lambda: server.metric("glm_queue_length") == 1)
            for path, more in (("/v1/fill", {}), ("/v1/fill", {"stream": True})):
                refused = server.post(path, {**body, **more})
                assert refused.status_code == 429
                assert int(refused.headers["retry-after"]) >= 1
                assert "wait already" in refused.json()["error"]["message"]
        assert waiting.result().status_code == 200


def test_who_leaves_the_queue_makes_room_in_it(filler):
    settings = dataclasses.replace(SETTINGS, queue=1)
    with serving(filler, settings) as server, server.busy():
        with pytest.raises(httpx2.TimeoutException):
            httpx2.post(server.url + "/v1/fill", json={"text": "a"}, timeout=0.5)
        wait_until(lambda: server.metric("glm_queue_length") == 0)


def test_clients_that_come_and_go_at_any_moment_leave_nothing_behind(server: Running, filler):
    draw = random.Random(0)
    kinds = [
        ("/v1/fill", {**LONG, "samples": 3}),
        ("/v1/fill", {**LONG, "stream": True}),
        ("/v1/score", {"text": "a [MASK]", "answers": ["b"]}),
        ("/v1/fill", {"text": "a [MASK] b", "max_blank_length": 3}),
    ]
    patience = [draw.choice([0.001, 0.01, 0.05, 0.2]) for _ in range(100)]
    left = []

    async def come_and_go(number: int) -> None:
        path, body = kinds[number % len(kinds)]
        async with httpx2.AsyncClient(timeout=HANG_SECONDS, verify=False) as client:
            await asyncio.sleep(number / 100)
            try:
                async with asyncio.timeout(patience[number]):
                    await client.post(server.url + path, json=body)
            except TimeoutError:
                left.append(number)

    async def come_all() -> None:
        await asyncio.gather(*map(come_and_go, range(100)))

    asyncio.run(come_all())
    assert len(left) > 20
    wait_until(lambda: in_use(server) == server.metric("glm_queue_length") == 0)
    assert not server.worker._live
    [expected] = filler.fill(["a [MASK] b"], Sampling(max_blank_length=9))
    assert server.fill("a [MASK] b", max_blank_length=9)["text"] == expected.text


@pytest.mark.usefixtures("slow_steps")
def test_a_search_does_not_wait_for_a_long_text_nor_change_it(server: Running, filler):
    [expected] = filler.fill([LONG["text"]], Sampling(max_blank_length=10, min_blank_length=10))
    long = {**LONG, "max_blank_length": 10, "min_blank_length": 10}
    with ThreadPoolExecutor() as pool:
        filling = pool.submit(server.fill, **long)
        wait_until(lambda: in_use(server) == 1)
        scored = server.post("/v1/score", {"text": "a [MASK]", "answers": ["b"]})
        assert scored.status_code == 200 and not filling.done()
        assert filling.result()["text"] == expected.text


def test_a_fault_of_the_worker_is_told_and_the_next_request_is_served(
    server: Running, filler, monkeypatch
):
    advance, failed = Engine.advance, threading.Event()

    def fail_once(self: Engine, *arguments, **options):
        if failed.is_set():
            return advance(self, *arguments, **options)
        failed.set()
        raise RuntimeError("the device is on fire")

    monkeypatch.setattr(Engine, "advance", fail_once)
    body = {"text": "a [MASK] b", "max_blank_length": 3, "samples": 2}
    response = server.post("/v1/fill", body)
    assert response.status_code == 500 and "fire" not in response.text
    assert response.json()["error"]["message"].startswith("the server failed")
    assert server.metric("glm_worker_faults_total") == 1
    [expected] = filler.fill([body["text"]], Sampling(max_blank_length=3, samples=2))
    assert server.fill(**body)["text"] == expected.text
    failed.clear()
    with httpx2.stream("POST", server.url + "/v1/fill", json={**body, "stream": True}) as stream:
        assert stream.status_code == 200
        *_, (name, data) = read_events(stream.iter_lines())
    assert name == "error" and data["error"]["message"].startswith("the server failed")
    assert server.get("/health").status_code == 200


def test_an_engine_that_cannot_be_made_anew_fails_requests_until_it_can(
    server: Running, monkeypatch
):
    body = {"text": "a [MASK] b", "max_blank_length": 3}
    with monkeypatch.context() as broken:

        def fail(*_arguments, **_options):
            raise RuntimeError("out of memory")

        broken.setattr(Engine, "advance", fail)
        broken.setattr("glm_jax.serve.worker.Engine", fail)
        for _ in range(3):
            assert server.post("/v1/fill", body).status_code == 500
    assert server.post("/v1/fill", body).status_code == 200


def test_a_fault_in_scoring_concerns_that_request_alone(server: Running, monkeypatch):
    def fail(*_arguments):
        raise RuntimeError("secret")

    body = {"text": "a [MASK]", "answers": ["b"]}
    with monkeypatch.context() as broken:
        broken.setattr(Filler, "score", fail)
        response = server.post("/v1/score", body)
        assert response.status_code == 500 and "secret" not in response.text
    assert server.post("/v1/score", body).status_code == 200


@pytest.mark.usefixtures("slow_steps")
def test_what_does_not_end_within_the_grace_is_given_up(filler):
    """Of 6 s at least that the texts would take; what waits is refused at once."""
    settings = dataclasses.replace(SETTINGS, grace=2.0)
    with serving(filler, settings) as server, ThreadPoolExecutor() as pool:
        url = server.url + "/v1/fill"
        with httpx2.stream(
            "POST", url, json={**LONG, "stream": True}, timeout=HANG_SECONDS
        ) as stream:
            events = read_events(stream.iter_lines())
            assert [next(events)[0], next(events)[0]] == ["start", "token"]
            whole = pool.submit(server.post, "/v1/fill", {**LONG, "samples": 3})
            wait_until(lambda: in_use(server) == 4)
            waiting = pool.submit(server.post, "/v1/fill", LONG)
            wait_until(lambda: server.metric("glm_queue_length") == 1)
            begin = time.monotonic()
            server.stop()
            assert waiting.result().status_code == 503
            assert not whole.done()
            assert whole.result().status_code == 503
            *_, (name, data) = events
            assert name == "error" and "stopping" in data["error"]["message"]
            assert time.monotonic() - begin > 1.9
        assert server.worker.join(HANG_SECONDS)
