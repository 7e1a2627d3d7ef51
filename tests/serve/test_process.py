"""The command as a process: what it says, many clients at a time, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import psutil
import pytest

from glm_jax.generate.fill import Filler
from glm_jax.generate.settings import Sampling
from tests.conftest import HANG_SECONDS
from tests.serve.running import read_events, read_metric, wait_until

CLIENTS = 32
ENDLESS = {"max_blank_length": 64, "min_blank_length": 64, "text": "a" + "[MASK]" * 30}


@dataclasses.dataclass(frozen=True)
class Started:
    """A server's process, where it is, the line that says so, and its log."""

    process: Any
    url: str
    line: str
    log: list[str]
    reader: threading.Thread


@pytest.fixture(scope="module")
def started(start_command, checkpoint) -> Iterator[Started]:
    """The command, with its log read all the time: a full pipe would hold it up."""
    flags = ["--port=0", "--rows=4", "--top=3", "--max_slots=2048", "--queue=64"]
    process = start_command(["serve", checkpoint, *flags])
    log: list[str] = []
    reader = threading.Thread(target=lambda: log.extend(process.stderr))
    reader.start()
    try:
        line = process.stdout.readline()
        yield Started(process, re.findall(r"http://\S+:\d+", line)[0], line, log, reader)
    finally:
        process.kill()
        process.wait()
        reader.join()


def test_the_first_line_says_what_is_served_and_where(started):
    assert re.fullmatch(
        r"serving tiny, a GLM with [\d,]+ parameters, on http://127\.0\.0\.1:\d+: "
        r"4 rows of 2048 slots, queue of 64\n",
        started.line,
    )
    assert httpx2.get(started.url + "/health").status_code == 200


def requests_like(count: int) -> list[dict[str, Any]]:
    """Requests of every kind, no two of them alike."""
    made = []
    for number in range(count):
        body: dict[str, Any] = {"text": f"no. {number} [MASK] of [sMASK]" + number % 7 * "."}
        body["max_blank_length"] = 3 + number % 11
        if number % 3 == 1:
            body |= {"temperature": 1.3, "seed": number, "top_k": 20}
        if number % 10 == 2:
            body |= {"samples": 2, "seed": number}
        made.append(body)
    return made


async def ask_all(url: str, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The answers to requests from several clients at a time, some of them streamed."""
    answers: list[Any] = [None] * len(bodies)
    numbers = iter(range(len(bodies)))

    async def be_a_client() -> None:
        async with httpx2.AsyncClient(timeout=HANG_SECONDS, verify=False) as client:
            for number in numbers:
                answers[number] = await ask(client, url, bodies[number], number % 4 == 0)

    await asyncio.gather(*(be_a_client() for _ in range(CLIENTS)))
    return answers


async def ask(client: httpx2.AsyncClient, url: str, body: dict[str, Any], stream: bool) -> Any:
    if not stream:
        response = await client.post(url + "/v1/fill", json=body)
        assert response.status_code == 200, response.text
        return response.json()
    async with client.stream("POST", url + "/v1/fill", json={**body, "stream": True}) as response:
        lines = [line async for line in response.aiter_lines()]
    *_, (name, data) = read_events(lines)
    assert name == "done"
    return data


def assert_none_lost_or_mixed_up(filler: Filler, bodies, answers) -> None:
    for body, answer in zip(bodies, answers, strict=True):
        fields = {name: value for name, value in body.items() if name != "text"}
        [alone] = filler.fill([body["text"]], Sampling(**fields))
        assert answer["text"] == alone.text, body
        for found, expected in zip(
            answer["samples"] or [answer], alone.samples or [alone], strict=True
        ):
            assert [blank["ids"] for blank in found["blanks"]] == [b.ids for b in expected.blanks]


def resident(process) -> float:
    """MB of memory."""
    return psutil.Process(process.pid).memory_info().rss / 1e6


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_many_requests_at_a_time_each_get_their_own_answer(started, filler, count):
    process, url = started.process, started.url
    warm = requests_like(50)
    asyncio.run(ask_all(url, warm))
    before, begin = resident(process), time.perf_counter()
    bodies = requests_like(count)
    answers = asyncio.run(ask_all(url, bodies))
    seconds, after = time.perf_counter() - begin, resident(process)
    print(f"{count} requests in {seconds:.1f} s, {before:.0f} MB before, {after:.0f} MB after")
    assert_none_lost_or_mixed_up(filler, bodies, answers)
    assert after - before < 30
    metrics = httpx2.get(url + "/metrics").text
    assert read_metric(metrics, "glm_rows_in_use") == read_metric(metrics, "glm_queue_length") == 0


def test_a_terminated_server_finishes_what_runs_and_refuses_what_waits(started):
    process, url = started.process, started.url
    with contextlib.ExitStack() as stack, ThreadPoolExecutor() as pool:
        streams = []
        for seed in range(4):
            body = {**ENDLESS, "stream": True, "temperature": 1.0, "seed": seed}
            response = stack.enter_context(
                httpx2.stream("POST", url + "/v1/fill", json=body, timeout=HANG_SECONDS)
            )
            events = read_events(response.iter_lines())
            assert [next(events)[0], next(events)[0]] == ["start", "token"]
            streams.append(events)
        waiting = [
            pool.submit(httpx2.post, url + "/v1/fill", json=ENDLESS, timeout=HANG_SECONDS)
            for _ in range(3)
        ]
        wait_until(lambda: read_metric(httpx2.get(url + "/metrics").text, "glm_queue_length") == 3)
        process.send_signal(signal.SIGTERM)
        assert [one.result().status_code for one in waiting] == [503] * 3
        for events in streams:
            *_, (name, data) = events
            assert name == "done"
            assert [len(blank["ids"]) for blank in data["blanks"]] == [64] * 30
    assert process.wait(HANG_SECONDS) == 0
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(url + "/health")
    started.reader.join(HANG_SECONDS)
    log = "".join(started.log)
    assert log.count(" POST /v1/fill 503 ") == 3
    assert "Traceback" not in log and "Error" not in log


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--rows=0"], "rows is 0"),
        (["--grace=-1"], "grace is -1"),
        (["--top=1000"], "top is 1000"),
        (["--port=70000"], "--port is 70000"),
        (["--host=192.0.2.1"], "can't serve on 192.0.2.1"),
        (["--token_file=/no/such/file"], "/no/such/file"),
    ],
)
def test_bad_flags_are_one_sentence(run_here, checkpoint, flags, part):
    result = run_here(["serve", checkpoint, "--port=0", *flags])
    assert result.returncode == 2
    assert part in result.stderr and len(result.stderr.splitlines()) == 1


def test_the_token_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    from glm_jax.cli.serve import read_token
    from glm_jax.errors import UsageError

    monkeypatch.delenv("GLM_JAX_TOKEN", raising=False)
    assert read_token(None) is None
    monkeypatch.setenv("GLM_JAX_TOKEN", "from-there")
    assert read_token(None) == "from-there"
    file = tmp_path / "token"
    file.write_text("from-here\n")
    assert read_token(file) == "from-here"
    for bad in ("", "two words", "schlüssel", "a\nb"):
        file.write_text(bad)
        with pytest.raises(UsageError, match="printable ASCII"):
            read_token(file)
