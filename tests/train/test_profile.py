"""The profiler traces the steps it is asked for, and none else."""

from pathlib import Path

import jax
import pytest

from glm_jax.errors import UsageError
from glm_jax.io.files import read_file, remove_folder
from glm_jax.io.paths import resolve_path
from glm_jax.train.profile import Profiler, ProfileSteps, parse_profile_steps


@pytest.mark.parametrize(
    ("text", "steps"), [("10:15", ProfileSteps(10, 15)), (" 3:3 ", ProfileSteps(3, 3))]
)
def test_windows_are_read(text, steps):
    assert parse_profile_steps(text) == steps


@pytest.mark.parametrize("text", ["", "10", "15:10", "0:3", "a:b", "1:2:3", "-1:2"])
def test_what_is_no_window_is_refused(text):
    with pytest.raises(UsageError, match="expected FIRST:LAST"):
        parse_profile_steps(text)


@pytest.fixture
def traced(monkeypatch):
    """Beginnings and ends of traces, in place of traces."""
    calls = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: calls.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
    return calls


@pytest.mark.parametrize(
    ("first_step", "num_steps", "expected"),
    [
        (0, 6, [2, "start", 4, "stop"]),
        (2, 6, [3, "start", 4, "stop"]),  # a run that goes on inside the window
        (4, 6, []),  # and one behind it
        (0, 3, [2, "start", "stop"]),  # one that ends inside
    ],
)
def test_the_window_is_traced(tmp_path, traced, first_step, num_steps, expected):
    seen = []
    with Profiler(tmp_path, ProfileSteps(2, 4)) as profiler:
        for step in range(first_step + 1, num_steps + 1):
            before = len(traced)
            profiler.before_step(step)
            seen += [step, *traced[before:]] if len(traced) > before else []
            before = len(traced)
            profiler.after_step(step)
            seen += [step, *traced[before:]] if len(traced) > before else []
    assert [*seen, *(["stop"] if traced.count("stop") > seen.count("stop") else [])] == expected


def test_no_window_traces_nothing(tmp_path, traced):
    with Profiler(tmp_path, None) as profiler:
        profiler.before_step(1)
        profiler.after_step(1)
    assert traced == []


def test_a_trace_is_uploaded_where_the_profiler_can_not_write(tmp_path, monkeypatch):
    url = f"memory://{tmp_path.name}/a run/profile"
    folders = []
    monkeypatch.setattr(jax.profiler, "start_trace", folders.append)
    monkeypatch.setattr(
        jax.profiler, "stop_trace", lambda: Path(folders[0], "x.xplane.pb").write_bytes(b"trace")
    )
    with Profiler(resolve_path(url), ProfileSteps(1, 1)) as profiler:
        profiler.before_step(1)
        profiler.after_step(1)
    assert read_file(f"{url}/x.xplane.pb") == b"trace"
    assert not Path(folders[0]).exists()
    remove_folder(url)


@pytest.mark.slow
def test_a_run_leaves_the_trace_it_was_asked_for(tiny_run, run_command):
    finished = run_command(["pretrain", f"--gin_file={tiny_run}", "--profile_steps=2:3"])
    assert finished.returncode == 0, finished.stderr
    folder = tiny_run.parent / "run" / "profile" / "process_0"
    assert list(folder.rglob("*.xplane.pb"))
