"""Two watches in one process: losses, failures and the end."""

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from multiprocessing import Pipe

import pytest

from glm_jax.cluster import watchdog
from glm_jax.cluster.watchdog import Peer, Peers
from glm_jax.errors import RunError, UsageError
from tests.conftest import HANG_SECONDS


@pytest.fixture
def pair(monkeypatch):
    """Two processes' watches in this one, and what each would end with."""
    monkeypatch.setattr(watchdog, "HEARTBEAT_SECONDS", 0.2)
    one, other = Pipe()
    ended = {0: [], 1: []}
    watches = [
        Peers(
            {1 - number: Peer(end, 1 - number, f"host{1 - number}", 2)},
            number,
            silence=3.0,
            on_end=lambda sentence, code, number=number: ended[number].append((sentence, code)),
        )
        for number, end in enumerate((one, other))
    ]
    yield watches, ended, (one, other)
    one.close()
    other.close()


def wait_for_end(ended: list) -> None:
    """Waits until a watch has ended its process."""
    limit = time.monotonic() + HANG_SECONDS
    while not ended:
        assert time.monotonic() < limit, "nothing has ended the process"
        time.sleep(0.02)


def part(watch) -> threading.Thread:
    """Lets a process come to its end in a thread; returns that once it is there."""
    watched = threading.Event()

    def work() -> None:
        with watch:
            watched.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert watched.wait(HANG_SECONDS)
    return thread


@pytest.mark.parametrize("early", [0, 1])
def test_processes_end_together(pair, early):
    watches, ended, _ = pair
    thread = part(watches[early])
    with watches[1 - early]:
        time.sleep(3.5)  # longer than silence: who waits sends heartbeats
        assert thread.is_alive()
    thread.join(HANG_SECONDS)
    assert not thread.is_alive()
    assert ended == {0: [], 1: []}


@pytest.mark.parametrize("waiting", [0, 1])
def test_a_process_that_waits_for_the_end_of_a_lost_one_ends(pair, waiting):
    watches, ended, ends = pair
    thread = part(watches[waiting])
    ends[1 - waiting].close()
    thread.join(HANG_SECONDS)
    assert not thread.is_alive()
    assert [code for _, code in ended[waiting]] == [1]
    assert f"process {1 - waiting} on host{1 - waiting} is lost" in ended[waiting][0][0]


def test_silence_is_a_loss(pair):
    (first, _), ended, _ = pair
    with first:
        wait_for_end(ended[0])
    assert len(ended[0]) == 1
    sentence, code = ended[0][0]
    assert code == 1 and "process 1 on host1 is lost (no heartbeat for 3 s)" in sentence


def test_a_closed_connection_is_a_loss(pair):
    (first, _), ended, (_, end) = pair
    with first:
        end.close()
        wait_for_end(ended[0])
    assert "process 1 on host1 is lost (its connection has closed)" in ended[0][0][0]


@pytest.mark.parametrize(
    ("error", "code"), [(RunError("bad loss"), 1), (UsageError("bad mesh"), 2)]
)
def test_an_error_of_ones_own_is_reported_to_the_others(pair, error, code):
    (_, second), ended, (end, _) = pair
    with pytest.raises(type(error)), second:
        raise error
    assert ended[1] == [(str(error), code)]
    peer, received = Peer(end, 1, "host1", 2), []
    while end.poll():
        try:
            received.append(peer.receive())
        except EOFError:
            break
    assert [message["failed"] for message in received if "failed" in message] == [str(error)]


def test_process_0_ends_last_when_it_fails(pair, monkeypatch):
    """JAX aborts, with a trace, the processes that are there when process 0 ends."""
    monkeypatch.setattr(watchdog, "FAILURE_SECONDS", 0.5)
    (first, second), _, (_, end) = pair
    order = []

    def end_second(sentence: str, code: int) -> None:
        order.append((1, sentence, code))
        second._closing.set()
        second._peers.clear()
        end.close()

    monkeypatch.setattr(second, "_on_end", end_second)
    monkeypatch.setattr(first, "_on_end", lambda *given: order.append((0, *given)))
    second._thread.start()
    with pytest.raises(UsageError), first:
        raise UsageError("no such file")
    assert [entry[0] for entry in order] == [1, 0]
    assert order[0][2] == 1 and "process 0 on" in order[0][1] and "no such file" in order[0][1]
    # Its own sentence: neither the loss of the other nor what comes back from it.
    assert order[1] == (0, "no such file", 2)


def test_an_error_that_the_loss_of_another_has_caused_is_not_reported(pair):
    (_, second), ended, (end, _) = pair
    with pytest.raises(RunError), second:
        end.close()
        raise RunError("saving failed") from ValueError("connection reset by peer")
    assert len(ended[1]) == 1 and "process 0 on host0 is lost" in ended[1][0][0]


END = """
from glm_jax.cluster import watchdog
watchdog.OUTPUT_SECONDS = 0.5
watchdog.end_process("the end", 3)
"""


@pytest.mark.parametrize("output", ["full", "closed"])
def test_a_process_ends_whether_or_not_its_output_is_read(output, process_environment):
    reading, writing = os.pipe()
    if output == "closed":
        os.close(reading)
    else:
        os.set_blocking(writing, False)
        with suppress(BlockingIOError):
            while True:
                os.write(writing, b"x" * 4096)
        os.set_blocking(writing, True)
    ended = subprocess.run(
        [sys.executable, "-c", END],
        env=process_environment(),
        stdout=writing,
        stderr=writing,
        timeout=HANG_SECONDS,
    )
    assert ended.returncode == 3
