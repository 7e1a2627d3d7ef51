"""Processes find each other, say who is missing, and admit no stranger."""

import os
import socket
import threading
import time
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge

import pytest

from glm_jax.cluster import join
from glm_jax.cluster.join import join_processes
from glm_jax.cluster.watchdog import Peer
from glm_jax.errors import RunError, UsageError


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


def connect(address) -> socket.socket:
    """A connection to process 0, from when it listens."""
    host, port = address.split(":")
    for _ in range(200):
        try:
            return socket.create_connection((host, int(port)))
        except OSError:
            time.sleep(0.05)
    pytest.fail("process 0 does not listen")


def play_process(address, number, count, host="elsewhere", token=join.DEFAULT_TOKEN, delay=0.0):
    """Joins process 0 as another process does; returns the open connection."""
    connection = Connection(connect(address).detach())
    time.sleep(delay)
    answer_challenge(connection, token.encode())
    deliver_challenge(connection, token.encode())
    peer = Peer(connection, 0, "localhost", count)
    peer.send({"process": number, "host": host, "num_processes": count})
    return peer


@pytest.mark.parametrize(
    ("others", "sentence"),
    [
        (
            [(1, 4), (3, 4)],
            r"1 of 4 processes did not join within 2 s: process 2; joined: 0 \(.*\), "
            r"1 \(elsewhere\), 3 \(elsewhere\)",
        ),
        ([(1, 4), (1, 4)], "two processes were started with --process_id=1, on elsewhere and"),
        ([(2, 3)], "process 2 on elsewhere was started with --num_processes=3, but process 0 with"),
    ],
)
def test_process_0_says_why_a_run_does_not_start(others, sentence):
    address = free_address()
    answers = []

    def play() -> None:
        peers = [play_process(address, number, count) for number, count in others]
        answers.extend(peer.receive() for peer in peers)

    playing = threading.Thread(target=play)
    playing.start()
    with pytest.raises(RunError, match=sentence) as raised:
        join_processes(address, 4, 0, timeout=2)
    playing.join()
    assert answers == [{"error": str(raised.value)}] * len(others)


def test_missing_hosts_are_named_where_the_cluster_lists_them(monkeypatch):
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "a.internal,b.internal,c.internal")
    with pytest.raises(RunError, match=r"process 1 \(b\.internal\), 2 \(c\.internal\); joined: 0"):
        join_processes(free_address(), 3, 0, timeout=0.1)


def strangers(address) -> list[socket.socket]:
    """What is not a process of the run: a scanner, one that is silent, one without the token."""
    sent = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00" * 64,
        b"\xff" * 4096,
        b'{"process": "stranger", "host": "x", "num_processes": 2}\n',
        b"",
    ]
    opened = [connect(address) for _ in sent]
    for end, data in zip(opened, sent, strict=True):
        end.sendall(data)
    with pytest.raises((AuthenticationError, EOFError, ConnectionError)):
        play_process(address, 1, 2, host="stranger", token="wrong")
    return opened


@pytest.fixture
def without_jax(monkeypatch):
    """Processes join, but JAX is not initialized."""
    monkeypatch.setattr("jax.distributed.initialize", lambda *_, **__: None)


@pytest.mark.parametrize("token", [None, "a secret of the run"])
def test_strangers_are_no_members_and_keep_a_slow_member_from_nothing(
    token, without_jax, monkeypatch
):
    if token is not None:
        monkeypatch.setenv(join.TOKEN_VARIABLE, token)
    address = free_address()
    answers = []

    def play() -> None:
        opened = strangers(address)
        known = token or join.DEFAULT_TOKEN
        answers.append(play_process(address, 1, 2, token=known, delay=0.5).receive())
        for end in opened:
            end.close()

    playing = threading.Thread(target=play)
    playing.start()
    join_processes(address, 2, 0, timeout=30)
    playing.join(30)
    assert answers == [{"start": socket.gethostname()}]


def test_strangers_alone_do_not_start_a_run():
    address = free_address()
    opened = []
    playing = threading.Thread(target=lambda: opened.extend(strangers(address)))
    playing.start()
    with pytest.raises(RunError, match=r"1 of 2 processes did not join within 2 s: process 1;"):
        join_processes(address, 2, 0, timeout=2)
    playing.join(30)
    for end in opened:
        end.close()


def test_a_process_that_ended_and_came_again_joins(without_jax):
    address = free_address()
    answers = []

    def play() -> None:
        play_process(address, 1, 3, host="first").connection.close()
        again = play_process(address, 1, 3, host="second")
        other = play_process(address, 2, 3, delay=0.5)
        answers.extend(peer.receive() for peer in (again, other))

    playing = threading.Thread(target=play)
    playing.start()
    join_processes(address, 3, 0, timeout=30)
    playing.join(30)
    assert answers == [{"start": socket.gethostname()}] * 2


def test_a_process_that_ended_before_the_start_is_missing():
    address = free_address()
    opened = []

    def play() -> None:
        play_process(address, 1, 3).connection.close()
        opened.append(play_process(address, 2, 3, delay=0.5))

    playing = threading.Thread(target=play)
    playing.start()
    with pytest.raises(RunError, match=r"1 of 3 processes did not join .*: process 1; joined: .*2"):
        join_processes(address, 3, 0, timeout=3)
    playing.join(30)
    assert "1 of 3" in opened[0].receive()["error"]


def test_a_process_that_is_too_slow_is_missing():
    address = free_address()
    opened = []
    playing = threading.Thread(target=lambda: opened.append(connect(address)))
    playing.start()  # connected, but proves nothing
    with pytest.raises(RunError, match=r"1 of 2 processes did not join within 1 s: process 1;"):
        join_processes(address, 2, 0, timeout=1)
    playing.join(30)
    opened[0].close()


def test_a_process_with_another_token_says_so(monkeypatch):
    monkeypatch.setenv(join.TOKEN_VARIABLE, "mine")
    with socket.create_server(("localhost", 0)) as server:

        def play() -> None:
            connection = Connection(server.accept()[0].detach())
            with connection, pytest.raises(AuthenticationError):
                deliver_challenge(connection, b"theirs")

        playing = threading.Thread(target=play)
        playing.start()
        address = f"localhost:{server.getsockname()[1]}"
        with pytest.raises(RunError, match="have different values of GLM_JAX_RUN_TOKEN"):
            join_processes(address, 2, 1, timeout=10)
        playing.join(10)


def test_a_process_without_its_coordinator_says_so():
    with pytest.raises(RunError, match=r"process 1 on .* did not reach process 0 at localhost:"):
        join_processes(free_address(), 2, 1, timeout=0.1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("localhost", 2, 0), "--coordinator is 'localhost'; expected HOST:PORT"),
        (("localhost:1", 2, 2), "--process_id is 2; expected 0 to 1"),
        ((), "--distributed found no cluster here"),
    ],
)
def test_impossible_arguments_are_refused(arguments, sentence, monkeypatch):
    for name in [name for name in os.environ if name.startswith(("SLURM", "OMPI", "TPU"))]:
        monkeypatch.delenv(name)
    with pytest.raises(UsageError, match=sentence):
        join_processes(*arguments)
