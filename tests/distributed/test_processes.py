"""Processes of a run end when one of them is lost or fails."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
from etils import epath

from glm_jax.io.lock import FolderLock
from tests.conftest import HANG_SECONDS

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
    from glm_jax.cluster.agree import any_process, first_message, wait_for_all

    if doing.startswith("locks "):
        from etils import epath
        from glm_jax.cluster.run_lock import RunLock

        with RunLock(epath.Path(doing.removeprefix("locks ")), print):
            print("locked", flush=True)
    for _ in range(0 if doing.startswith("locks ") else 600):
        any_process(False)
        print("met", flush=True)
        if doing == "fails" and number == 1:
            raise RunError("its loss is not finite")
        if doing == "agrees":
            wait_for_all("here")
            print(any_process(number == 1), first_message(f"said by {number}" if number else None))
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
def test_a_process_that_hangs_is_lost(start):
    address = free_address()
    processes = [start(address, number, 3) for number in range(3)]
    wait_until_met(processes)
    processes[1].send_signal(signal.SIGSTOP)
    begin = time.monotonic()
    for number in (0, 2):
        _, errors = processes[number].communicate(timeout=60)
        assert processes[number].returncode == 1
        assert "process 1 on" in errors and "no heartbeat for 30 s" in errors
    assert time.monotonic() - begin < 60


@pytest.mark.slow
def test_the_failure_of_a_process_ends_the_others_with_its_sentence(start):
    address = free_address()
    processes = [start(address, number, 3, "fails") for number in range(3)]
    for number, process in enumerate(processes):
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        reported = "glm-jax: its" if number == 1 else "process 1 on"
        assert reported in errors and "its loss is not finite" in errors


def test_processes_agree(start):
    address = free_address()
    processes = [start(address, number, 2, "agrees") for number in range(2)]
    for process in processes:
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert output.splitlines()[-1] == "True said by 1"


@pytest.mark.parametrize("held", [False, True])
def test_all_processes_of_a_run_are_refused_a_folder_that_is_in_use(start, tmp_path, held):
    folder = epath.Path(tmp_path / "run")
    address = free_address()
    with FolderLock(folder) if held else nullcontext():
        processes = [start(address, number, 2, f"locks {folder}") for number in (0, 1)]
        ended = [process.communicate(timeout=HANG_SECONDS) for process in processes]
    for process, (output, errors) in zip(processes, ended, strict=True):
        if held:
            assert process.returncode == 1 and "locked" not in output
            assert f"{folder} is in use by process {os.getpid()} on" in errors, errors
        else:
            assert process.returncode == 0 and "locked" in output, errors
    assert list(tmp_path.iterdir()) == [tmp_path / "run"] and not list(folder.iterdir())
