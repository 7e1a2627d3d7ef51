"""Every process reports its progress, and the one that is behind is named."""

import time

import pytest

from glm_jax.cli.main import main
from glm_jax.cluster.heartbeat import Heartbeat, ProcessStatus, lagging, read_heartbeats
from glm_jax.errors import UsageError
from tests.conftest import HANG_SECONDS


def read(folder) -> list[ProcessStatus]:
    """What has been reported so far."""
    try:
        return read_heartbeats(folder)
    except UsageError:
        return []


def test_a_process_reports_its_step_until_it_ends(tmp_path):
    with Heartbeat(tmp_path, 3, first_step=10, period=0.02) as heartbeat:
        heartbeat.before_step(11)
        heartbeat.doing("saving")
        limit = time.monotonic() + HANG_SECONDS
        while not (found := read(tmp_path)) or found[0].doing != "saving":
            assert time.monotonic() < limit, found
            time.sleep(0.02)
        (status,) = found
        assert (status.process, status.started, status.finished, status.doing) == (
            3,
            11,
            10,
            "saving",
        )
        assert abs(time.time() - status.time) < HANG_SECONDS and status.host
        heartbeat.after_step(11)
    (status,) = read_heartbeats(tmp_path)
    assert (status.finished, status.doing) == (11, "ended")


def test_the_one_that_others_wait_for_is_seen():
    now = 1000.0
    statuses = [
        ProcessStatus(0, "a", 12, 11, "training", now - 2),
        ProcessStatus(1, "b", 11, 11, "training", now - 40),
        ProcessStatus(2, "c", 12, 11, "ended", now - 4000),
    ]
    assert lagging(statuses, now) == {1: "SILENT, 1 step(s) BEHIND"}
    assert statuses[0].describe(now) == (
        "process 0 on a: training, step 12 started, 11 finished, reported 2 s ago"
    )


def test_a_folder_without_heartbeats_is_refused(tmp_path):
    with pytest.raises(UsageError, match="holds no heartbeats"):
        read_heartbeats(tmp_path)
    (tmp_path / "heartbeats").mkdir()
    (tmp_path / "heartbeats" / "process_00000.json").write_text("{}")
    with pytest.raises(UsageError, match=r"process_00000\.json is not a heartbeat file"):
        read_heartbeats(tmp_path)


def test_the_command_shows_them(tmp_path, capsys):

    with Heartbeat(tmp_path, 0, first_step=0):
        assert main(["hosts", str(tmp_path)]) == 0
    assert "process 0 on" in capsys.readouterr().out
