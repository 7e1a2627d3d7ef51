"""Trials that are forked from a server: started, waited for and lost as those that are executed."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from glm_jax.configure import read_sweep
from glm_jax.io.processes import is_running, start_of
from glm_jax.sweeps.backends import local_backend
from glm_jax.sweeps.devices import Slot
from glm_jax.sweeps.jobs import Ended
from glm_jax.sweeps.local import ForkedJob, LocalBackend, LocalJob
from glm_jax.sweeps.plan import Plan
from glm_jax.sweeps.prepared import ForkServer, is_supported
from glm_jax.sweeps.run import run_sweep
from tests.sweeps.conftest import STAND_IN
from tests.sweeps.traces import starts

pytestmark = pytest.mark.skipif(not is_supported(), reason="needs Linux")

PROGRAM = (sys.executable, str(Path(__file__).with_name("fork_stand_in.py")))
SECONDS = 60.0


@pytest.fixture
def server(process_environment) -> Iterator[ForkServer]:
    """A server that is ready."""
    server = ForkServer("pretrain", process_environment(1), PROGRAM)
    wait_for(lambda: server.is_ready)
    yield server
    server.close()


def wait_for(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ended(job: ForkedJob) -> Ended:
    wait_for(lambda: job.poll() is not None)
    found = job.poll()
    assert found is not None
    return found


def start(server: ForkServer, folder: Path, *arguments: str, cores=frozenset()) -> tuple[int, int]:
    """A process that waits, and the other end of its standard input."""
    read, gate = os.pipe()
    with (
        open(read, "rb") as stdin,
        open(folder / "out", "ab") as out,
        open(folder / "err", "ab") as err,
    ):
        process = server.start(arguments, {"FOR_THE_SLOT": "7"}, cores, (stdin, out, err))
    assert process is not None
    return process, gate


def test_a_process_has_its_arguments_variables_cores_and_streams(server, tmp_path):
    core = min(os.sched_getaffinity(0))
    process, gate = start(server, tmp_path, "describe", "--a=b c", cores=frozenset({core}))
    job = ForkedJob(server, process, gate)
    assert job.record["started"] == start_of(process) and is_running(process, start_of(process))
    time.sleep(0.2)
    assert job.poll() is None and not (tmp_path / "out").read_text()  # it waits
    job.proceed()
    assert ended(job).code == 3
    assert (tmp_path / "out").read_text() == f"['--a=b c'] 7 [{core}] True \n"
    assert (tmp_path / "err").read_text() == "an error\n"


def test_a_process_ends_if_its_driver_is_gone_before_it_proceeds(server, tmp_path):
    process, gate = start(server, tmp_path, "describe")
    os.close(gate)
    wait_for(lambda: server.code_of(process) is not None)
    assert server.code_of(process) == 1 and not (tmp_path / "out").read_text()


def test_a_killed_process_is_reported_by_its_signal(server, tmp_path):
    process, gate = start(server, tmp_path, "describe")
    os.kill(process, signal.SIGKILL)
    job = ForkedJob(server, process, gate)
    assert ended(job).code == -signal.SIGKILL and ended(job).was_killed
    job.proceed()


def test_processes_outlive_their_server_and_are_still_waited_for(server, tmp_path):
    process, gate = start(server, tmp_path, "describe")
    job = ForkedJob(server, process, gate)
    os.kill(server.number, signal.SIGKILL)
    wait_for(lambda: not server.is_ready)
    assert job.poll() is None and is_running(process, start_of(process))
    job.proceed()
    assert ended(job).code is None
    assert (tmp_path / "out").read_text().startswith("[]")
    assert server.start(("describe",), {}, frozenset(), ()) is None


def test_a_server_ends_with_its_connection_and_its_processes_do_not(server, tmp_path):
    process, gate = start(server, tmp_path, "describe")
    number, started = server.number, start_of(server.number)
    server.close()
    wait_for(lambda: not is_running(number, started))
    assert is_running(process, start_of(process))
    os.close(gate)


def test_a_sweep_forks_its_trials_once_the_server_is_ready(
    write_sweep, process_environment, tmp_path, monkeypatch
):
    file = write_sweep("sweep.choices = {'optimizer.learning_rate': (1e-3, 5.0, 1e-2, 2e-2)}")
    plan = Plan(*read_sweep([file]), str(file), 1)
    environment = process_environment(1) | {"STAND_IN_STEP_SECONDS": "0.2"}
    backend = local_backend(plan, (Slot({}, frozenset(), 1),), environment, STAND_IN)
    backend._start_server = partial(ForkServer, "pretrain", environment, PROGRAM)
    jobs, start_one = [], backend.start

    def start_and_note(trial, slot):
        if jobs:
            wait_for(lambda: backend._server and backend._server.is_ready)
        jobs.append(start_one(trial, slot))
        return jobs[-1]

    monkeypatch.setattr(backend, "start", start_and_note)
    lines: list[str] = []
    with pytest.raises(Exception, match="1 of 4 trials failed: learning_rate=5: step 1: loss nan"):
        run_sweep(plan, backend, lines.append)
    assert [type(job) for job in jobs] == [LocalJob, ForkedJob, ForkedJob, ForkedJob]
    assert len(starts(tmp_path / "sweep")) == 4
    assert sum(line.startswith("finished") for line in lines) == 3


def test_a_sweep_without_a_server_executes_its_trials(write_sweep, process_environment):
    file = write_sweep("sweep.seeds = (1, 2)")
    plan = Plan(*read_sweep([file]), str(file), 1)

    def backend_of(slots: int, *program) -> LocalBackend:
        return local_backend(plan, (Slot({}, frozenset(), 1),) * slots, {}, *program)

    assert backend_of(1)._start_server is not None
    assert backend_of(2)._start_server is None  # all start at once
    assert backend_of(1, STAND_IN)._start_server is None
