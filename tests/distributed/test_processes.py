"""Processes find each other, say who is missing, and end when one of them is lost."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from glm_jax.cluster import watchdog as peers
from glm_jax.cluster.join import join_processes
from glm_jax.cluster.watchdog import Connection, Peers
from glm_jax.errors import RunError, UsageError

ROOT = Path(__file__).resolve().parents[2]

# A run reduced to its meetings: every process waits for all others ten times a second.
PROGRAM = """
import sys
from glm_jax.errors import RunError, UsageError
from glm_jax.cluster.join import join_processes

number, count, timeout, doing = int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), sys.argv[5]
try:
    peers = join_processes(sys.argv[1], count, number, timeout=timeout)
except (RunError, UsageError) as error:
    sys.exit(str(error))
with peers:
    import time
    import jax
    from glm_jax.cluster.agree import any_process, first_said, wait_for_all

    for _ in range(600):
        any_process(False)
        print("met", flush=True)
        if doing == "fails" and number == 1:
            raise RunError("its loss is not finite")
        if doing == "agrees":
            wait_for_all("here")
            print(any_process(number == 1), first_said(f"said by {number}" if number else None))
            break
        time.sleep(0.1)
"""


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


@pytest.fixture
def start():
    """Starts a process of the program; all are killed at the end."""
    started = []

    def start(address, number, count, doing="meets", timeout=60.0):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, address, *map(str, (number, count, timeout, doing))],
            env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def wait_until_met(processes) -> None:
    for process in processes:
        while "met" not in (line := process.stdout.readline()):
            assert line, process.stderr.read()


@pytest.mark.parametrize(
    "lost",
    [1, pytest.param(0, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)],
)
def test_losing_a_process_ends_the_others_with_its_name(start, lost):
    address = free_address()
    processes = [start(address, number, 3) for number in range(3)]
    wait_until_met(processes)
    processes[lost].kill()
    begin = time.monotonic()
    for number, process in enumerate(processes):
        _, errors = process.communicate(timeout=60)
        if number != lost:
            assert process.returncode == 1
            assert f"glm-jax: process {lost} on {socket.gethostname()} is lost" in errors
    assert time.monotonic() - begin < 30


@pytest.mark.slow
def test_a_process_that_stands_still_is_lost(start):
    address = free_address()
    processes = [start(address, number, 3) for number in range(3)]
    wait_until_met(processes)
    processes[1].send_signal(signal.SIGSTOP)
    begin = time.monotonic()
    for number in (0, 2):
        _, errors = processes[number].communicate(timeout=60)
        assert processes[number].returncode == 1
        assert "process 1 on" in errors and "nothing was heard of it for 30 s" in errors
    assert time.monotonic() - begin < 60


@pytest.mark.slow
def test_the_failure_of_a_process_ends_the_others_with_its_sentence(start):
    address = free_address()
    processes = [start(address, number, 3, "fails") for number in range(3)]
    for number, process in enumerate(processes):
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        told = "glm-jax: its" if number == 1 else "process 1 on"
        assert told in errors and "its loss is not finite" in errors


def test_processes_agree(start):
    address = free_address()
    processes = [start(address, number, 2, "agrees") for number in range(2)]
    for process in processes:
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert output.splitlines()[-1] == "True said by 1"


def arrive(address, number, count, host="elsewhere"):
    """Knocks at process 0 as another process does; returns the open connection."""
    name, port = address.split(":")
    for _ in range(200):
        try:
            end = socket.create_connection((name, int(port)))
            break
        except OSError:
            time.sleep(0.05)
    else:
        pytest.fail("process 0 does not listen")
    connection = Connection(end, 0, name, count)
    connection.send({"process": number, "host": host, "num_processes": count})
    return connection


@pytest.mark.parametrize(
    ("others", "sentence"),
    [
        (
            [(1, 4), (3, 4)],
            r"1 of 4 processes did not come within 2 s: process 2; there were 0 \(.*\), "
            r"1 \(elsewhere\), 3 \(elsewhere\)",
        ),
        ([(1, 4), (1, 4)], "two processes were started with --process_id=1, on elsewhere and"),
        ([(2, 3)], "process 2 on elsewhere was started with --num_processes=3, but process 0 with"),
    ],
)
def test_process_0_says_why_a_run_does_not_begin(others, sentence):
    address = free_address()
    answers = []

    def play() -> None:
        ends = [arrive(address, number, count) for number, count in others]
        answers.extend(end.receive()[0] for end in ends)

    playing = threading.Thread(target=play)
    playing.start()
    with pytest.raises(RunError, match=sentence) as raised:
        join_processes(address, 4, 0, timeout=2)
    playing.join()
    assert answers == [{"error": str(raised.value)}] * len(others)


def test_missing_hosts_are_named_where_the_cluster_lists_them(monkeypatch):
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "a.internal,b.internal,c.internal")
    with pytest.raises(RunError, match=r"process 1 \(b\.internal\), 2 \(c\.internal\); there were"):
        join_processes(free_address(), 3, 0, timeout=0.1)


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


@pytest.fixture
def pair(monkeypatch):
    """Two processes' watches in this one, and what each would end with."""
    monkeypatch.setattr(peers, "BEAT_SECONDS", 0.2)
    one, other = socket.socketpair()
    ended = {0: [], 1: []}
    watches = [
        Peers(
            {1 - number: Connection(end, 1 - number, f"host{1 - number}", 2)},
            number,
            silence=1.0,
            on_end=lambda sentence, code, number=number: ended[number].append((sentence, code)),
        )
        for number, end in enumerate((one, other))
    ]
    yield watches, ended, (one, other)
    one.close()
    other.close()


def part(watch) -> threading.Thread:
    """Lets a process come to its end in a thread; returns that once it is there."""
    watched = threading.Event()

    def work() -> None:
        with watch:
            watched.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert watched.wait(5)
    return thread


@pytest.mark.parametrize("early", [0, 1])
def test_processes_end_together(pair, early):
    watches, ended, _ = pair
    thread = part(watches[early])
    with watches[1 - early]:
        time.sleep(1.5)  # longer than silence: who waits is heard
        assert thread.is_alive()
    thread.join(5)
    assert not thread.is_alive()
    assert ended == {0: [], 1: []}


@pytest.mark.parametrize("waiting", [0, 1])
def test_a_process_that_waits_for_the_end_of_a_lost_one_ends(pair, waiting):
    watches, ended, ends = pair
    thread = part(watches[waiting])
    ends[1 - waiting].close()
    thread.join(5)
    assert not thread.is_alive()
    assert [code for _, code in ended[waiting]] == [1]
    assert f"process {1 - waiting} on host{1 - waiting} is lost" in ended[waiting][0][0]


def test_silence_is_a_loss(pair):
    (first, _), ended, _ = pair
    with first:
        time.sleep(2)
    assert len(ended[0]) == 1
    sentence, code = ended[0][0]
    assert code == 1 and "process 1 on host1 is lost (nothing was heard of it for 1 s)" in sentence


def test_a_closed_connection_is_a_loss(pair):
    (first, _), ended, (_, end) = pair
    with first:
        end.close()
        time.sleep(0.6)
    assert "process 1 on host1 is lost (its connection has closed)" in ended[0][0][0]


@pytest.mark.parametrize(
    ("error", "code"), [(RunError("bad loss"), 1), (UsageError("bad mesh"), 2)]
)
def test_an_error_of_ones_own_is_told_to_the_others(pair, error, code):
    (_, second), ended, (end, _) = pair
    with pytest.raises(type(error)), second:
        raise error
    assert ended[1] == [(str(error), code)]
    told = Connection(end, 1, "host1", 2).receive()
    assert [message["failed"] for message in told if "failed" in message] == [str(error)]


def test_an_error_that_the_loss_of_another_has_caused_is_not_told(pair):
    (_, second), ended, (end, _) = pair
    with pytest.raises(RunError), second:
        end.close()
        raise RunError("saving failed") from ValueError("connection reset by peer")
    assert len(ended[1]) == 1 and "process 0 on host0 is lost" in ended[1][0][0]
