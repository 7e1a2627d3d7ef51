"""Mapping over processes."""

import os
import signal
import subprocess
import sys
import time

import pytest

from glm_jax.data.sources.workers import ordered_map
from glm_jax.errors import RunError, UsageError
from tests.conftest import HANG_SECONDS


def test_results_come_in_order_and_only_few_items_are_read_ahead():
    read = []

    def items():
        for number in range(40):
            read.append(number)
            yield number

    results = ordered_map(abs, items(), workers=2)
    assert next(results) == 0
    assert len(read) <= 6
    assert list(results) == list(range(1, 40))


def test_errors_of_the_function_and_of_the_items_are_passed_on():
    with pytest.raises(ValueError, match="invalid literal"):
        list(ordered_map(int, ["1", "x"], workers=2))

    def items():
        yield "1"
        raise UsageError("bad source")

    with pytest.raises(UsageError, match="bad source"):
        list(ordered_map(int, items(), workers=2))


def test_a_killed_worker_is_an_error():
    with pytest.raises(RunError, match="worker process was killed"):
        list(ordered_map(os._exit, [1], workers=2))


def test_too_few_workers_are_refused():
    with pytest.raises(UsageError, match="workers is 0"):
        ordered_map(int, ["1"], workers=0)


def test_workers_end_with_a_killed_main_process(tmp_path):
    script = tmp_path / "main.py"
    script.write_text(
        "import os, time\n"
        "from glm_jax.data.sources.workers import ordered_map\n"
        "def work(seconds):\n"
        "    print(os.getpid(), flush=True)\n"
        "    time.sleep(seconds)\n"
        "if __name__ == '__main__':\n"
        "    list(ordered_map(work, [600, 600], workers=2))\n"
    )
    main = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert main.stdout is not None
    workers = [int(main.stdout.readline()) for _ in range(2)]
    main.send_signal(signal.SIGKILL)
    main.wait()
    deadline = time.monotonic() + HANG_SECONDS
    while any(is_running(worker) for worker in workers):
        assert time.monotonic() < deadline, "workers outlived the main process"
        time.sleep(0.05)


def is_running(process):
    try:
        with open(f"/proc/{process}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
