"""The metrics file survives kills and is enough to draw the picture."""

import io
import json
import resource

import pytest
import tensorflow as tf
from rich.console import Console

from glm_jax.errors import RunError
from glm_jax.train.metrics import MetricsWriter, ProgressLine, draw_loss, duration, read_metrics


def write_run(folder, steps, first_step=0):
    writer = MetricsWriter(folder, first_step)
    for step in steps:
        writer.write("train", step, {"loss": 10.0 / step})
    writer.close()


def test_a_resumed_run_forgets_what_its_checkpoint_does_not_hold(tmp_path):
    write_run(tmp_path, [1, 2, 3, 4])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "kind": "tr')  # killed while writing
    write_run(tmp_path, [3, 4], first_step=2)
    assert [record["step"] for record in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]


def test_values_that_are_not_finite_stay_valid_json(tmp_path):
    writer = MetricsWriter(tmp_path, 0)
    writer.write("train", 1, {"loss": float("nan"), "gradient_norm": float("inf")})
    writer.close()
    record = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert record == {"step": 1, "kind": "train", "loss": None, "gradient_norm": None}


def test_events_are_written_for_tensorboard(tmp_path):
    write_run(tmp_path, [1, 2])
    (file,) = (tmp_path / "tensorboard").glob("events.out.tfevents.*")
    first, resumed, *events = tf.compat.v1.train.summary_iterator(str(file))
    assert (first.file_version, resumed.step) == ("brain.Event:2", 1)
    values = [(e.step, e.summary.value[0].tag, e.summary.value[0].simple_value) for e in events]
    assert values == [(1, "train/loss", 10.0), (2, "train/loss", 5.0)]


def test_a_full_disk_ends_a_run_with_the_name_of_the_file(tmp_path):
    writer = MetricsWriter(tmp_path, 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(OSError, match=r"metrics\.jsonl"):
            writer.write("train", 1, {"loss": 1.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    writer.close()
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""


def test_picture_is_drawn_from_the_file_alone(tmp_path):
    write_run(tmp_path, range(1, 30))
    writer = MetricsWriter(tmp_path, 29)
    writer.write("validation", 29, {"loss": 0.4, "unigram_entropy": 6.0})
    writer.close()
    draw_loss(tmp_path / "metrics.jsonl", tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_to_draw_is_said(tmp_path):
    with pytest.raises(RunError, match="no training step"):
        draw_loss(tmp_path / "metrics.jsonl", tmp_path / "loss.png")


def test_off_a_terminal_only_logged_lines_are_printed():
    output = io.StringIO()
    with ProgressLine(Console(file=output)) as line:
        line.show("step 1", logged=False)
        line.show("step 2", logged=True)
        line.say("done")
    assert output.getvalue().splitlines() == ["step 2", "done"]


@pytest.mark.parametrize(("seconds", "text"), [(42.4, "42s"), (185, "3m05s"), (7620, "2h07m")])
def test_duration(seconds, text):
    assert duration(seconds) == text
