"""Of several processes one has a folder; one that is gone keeps it from nobody."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
from etils import epath

from glm_jax.errors import RunError
from glm_jax.io import swap_file
from glm_jax.io.lock import LOCK_FILE, FolderLock
from glm_jax.io.paths import resolve_path
from glm_jax.io.processes import is_running, start_of_this_process

HOLD = """
import sys, time
from etils import epath
from glm_jax.io.lock import FolderLock
with FolderLock(epath.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path / "run")


@pytest.fixture
def bucket():
    yield resolve_path("memory://bucket/run")
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


@pytest.fixture
def holding(folder, process_environment):
    """Another process that holds the lock of `folder`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdout=subprocess.PIPE,
        env=process_environment(),
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def change(folder: Path | epath.Path, **values) -> None:
    """Changes what the lock file says of its holder."""
    path = epath.Path(folder) / LOCK_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def assert_free(folder, silence=0.5, **options) -> None:
    with FolderLock(folder, silence=silence, **options) as held:
        held.check()


@pytest.mark.parametrize("name", ["folder", "bucket"])
def test_a_second_is_refused_until_the_first_has_ended(name, request, monkeypatch):
    monkeypatch.setattr(swap_file, "SETTLE_SECONDS", 0.05)
    folder = request.getfixturevalue(name)
    with (
        FolderLock(folder, period=0.1),
        pytest.raises(RunError, match=rf"in use by process {os.getpid()} on \S+ since \d{{4}}-"),
        FolderLock(folder, period=0.1, silence=5),
    ):
        pass
    assert not (folder / LOCK_FILE).exists()
    assert_free(folder)


def test_of_many_that_start_at_once_one_has_it(folder):
    for _ in range(5):
        ready, done = threading.Barrier(8), threading.Barrier(8)

        def take(ready=ready, done=done) -> bool:
            ready.wait()
            try:
                with FolderLock(folder):
                    done.wait()
                    return True
            except RunError:
                done.wait()
                return False

        with ThreadPoolExecutor(8) as threads:
            assert sum(threads.map(lambda _: take(), range(8))) == 1


def test_of_many_that_find_a_void_lock_one_has_it(folder):
    with FolderLock(folder):
        content = (folder / LOCK_FILE).read_bytes()
    (folder / LOCK_FILE).write_bytes(content)
    change(folder, started="another")
    ready, done = threading.Barrier(8), threading.Barrier(8)

    def take(_) -> bool:
        ready.wait()
        try:
            with FolderLock(folder):
                done.wait()
                return True
        except RunError:
            done.wait()
            return False

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(take, range(8))) == 1


def test_another_process_is_named_and_killed_it_blocks_nothing(folder, holding):
    with pytest.raises(RunError, match=f"in use by process {holding.pid} on "):
        FolderLock(folder).__enter__()
    holding.send_signal(signal.SIGKILL)
    started = json.loads((folder / LOCK_FILE).read_text())["started"]
    while is_running(holding.pid, started):
        time.sleep(0.01)
    assert (folder / LOCK_FILE).exists()
    assert_free(folder, silence=600)  # before its parent has waited for it, and at once
    holding.wait()


def test_a_process_that_is_stopped_still_holds_it(folder, holding):
    holding.send_signal(signal.SIGSTOP)
    with pytest.raises(RunError, match="in use"):
        FolderLock(folder, silence=0.2).__enter__()


def test_a_copied_folder_is_free(folder, holding, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / LOCK_FILE).write_bytes((folder / LOCK_FILE).read_bytes())
    assert_free(epath.Path(copy), silence=600)


def test_a_linked_folder_is_the_same(folder, holding, tmp_path):
    os.symlink(folder, tmp_path / "link")
    with pytest.raises(RunError, match="in use"):
        FolderLock(epath.Path(tmp_path / "link")).__enter__()


@pytest.mark.parametrize("other", [{"machine": "rebooted"}, {"machine": "x", "host": "host1"}])
def test_a_lock_of_another_machine_is_watched(folder, other):
    lines = []
    with FolderLock(folder, period=0.1):
        change(folder, **other)
        alive = threading.Event()

        def renew() -> None:
            while not alive.wait(0.05):
                change(folder, renewed=time.time())

        renewing = threading.Thread(target=renew)
        renewing.start()
        with pytest.raises(RunError, match="in use by process"):
            FolderLock(folder, lines.append, period=0.1, silence=60).__enter__()
        alive.set()
        renewing.join()
    assert len(lines) == 1 and "watching for up to 60 s" in lines[0]


def test_a_silent_lock_of_another_machine_is_void(folder):
    folder.mkdir()
    with FolderLock(folder, period=600):
        change(folder, machine="another")
        assert_free(folder, silence=0.3)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"host": 1}'])
def test_a_lock_that_is_no_lock_is_void_when_it_stays_the_same(folder, content):
    folder.mkdir()
    (folder / LOCK_FILE).write_bytes(content)
    assert_free(folder, silence=0.3)


def test_a_holder_of_other_types_is_none(folder):
    with FolderLock(folder, period=600):
        change(folder, process="7")
        assert_free(folder, silence=0.3)


def test_a_process_is_its_number_and_its_start():
    assert is_running(os.getpid(), start_of_this_process())
    assert not is_running(os.getpid(), "0")
    assert not is_running(2**22 + 1, "0")  # beyond the largest number


def test_a_lock_that_was_taken_over_is_noticed(folder):
    with FolderLock(folder, period=0.05) as held:
        held.check()
        change(folder, token="another's", process=7, host="host7")
        time.sleep(0.5)
        with pytest.raises(RunError, match="was taken over by process 7 on host7"):
            held.check()
    assert (folder / LOCK_FILE).exists()  # it is not ours to remove


def test_a_lock_that_was_removed_is_renewed(folder):
    with FolderLock(folder, period=0.05) as held:
        (folder / LOCK_FILE).unlink()
        time.sleep(0.5)
        held.check()
        assert (folder / LOCK_FILE).exists()
    assert not (folder / LOCK_FILE).exists()


def test_a_folder_that_was_removed_stays_removed(folder):
    with FolderLock(folder, period=0.05):
        folder.rmtree()
        time.sleep(0.5)
    assert not folder.exists()


def test_a_folder_that_cannot_be_written_to_gets_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file/run can't be written to: Not a directory"):
        FolderLock(epath.Path(tmp_path / "file" / "run")).__enter__()
