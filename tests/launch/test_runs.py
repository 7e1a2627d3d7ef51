"""Launch scripts at work: real runs here, and TPU VMs that a stand-in gives and takes away."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from ast import literal_eval
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Behaves as a cloud would: what happens after each start of training is the first line left in the
# file of events, "EXIT_CODE STATE_AFTERWARDS". Commands for the VMs are run here.
CLOUD = """
import pathlib, subprocess
state, events = pathlib.Path({state!r}), pathlib.Path({events!r})
verb = sys.argv[4]
if verb == "create":
    state.write_text("WAITING_FOR_RESOURCES")
elif verb == "describe":
    if not state.exists():
        sys.exit(1)
    print(state.read_text())
    if state.read_text() == "WAITING_FOR_RESOURCES":
        state.write_text("ACTIVE")
elif verb == "delete":
    state.unlink()
elif verb == "ssh":
    remote = next(a for a in sys.argv if a.startswith("--command=")).partition("=")[2]
    subprocess.run(["sh", "-c", remote], check=True)
    event, *rest = events.read_text().splitlines()
    events.write_text("\\n".join(rest))
    code, after = event.split()
    state.write_text(after)
    sys.exit(int(code))
"""
CONTAINER = """
if sys.argv[1] == "run":
    image = sys.argv.index("eu.example/p/glm")
    os.execv(sys.argv[image + 1], sys.argv[image + 1:])
"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def steps(run_folder: Path) -> list[int]:
    records = map(json.loads, (run_folder / "metrics.jsonl").read_text().splitlines())
    return [record["step"] for record in records if record["kind"] == "train"]


def start_two(tiny_run, environment, *bindings: str) -> subprocess.Popen[str]:
    """Two processes on this machine, quiet but for their errors."""
    return subprocess.Popen(
        [
            str(ROOT / "launch" / "processes.sh"),
            "--num_processes=2",
            f"--port={free_port()}",
            f"--gin_file={tiny_run}",
            *bindings,
        ],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow  # a signal's test starts the same
def test_one_machine_trains(launch, real_glm_jax, tiny_run, tmp_path):
    done = launch("local.sh", f"--gin_file={tiny_run}", "--gin.train.num_steps=3")
    assert done.returncode == 0, done.stderr
    assert steps(tmp_path / "run") == [1, 2, 3]


@pytest.mark.slow  # the next one starts them as well
def test_two_processes_train_as_one_run(environment, real_glm_jax, tiny_run, tmp_path):
    process = start_two(tiny_run, environment, "--gin.train.num_steps=3")
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    assert steps(tmp_path / "run") == [1, 2, 3]


@pytest.mark.slow
def test_a_signal_reaches_every_process_and_they_save(
    environment, real_glm_jax, tiny_run, tmp_path
):
    process = start_two(tiny_run, environment, "--gin.train.num_steps=100000")
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 900
    while not (metrics.exists() and steps(tmp_path / "run")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    assert any(folder.name.isdecimal() for folder in (tmp_path / "run" / "checkpoints").iterdir())


def test_processes_that_fail_give_their_exit_code(environment, stand_in, tiny_run):
    stand_in("glm-jax", 'sys.exit(3 if "--process_id=1" in sys.argv else 0)')
    process = start_two(tiny_run, environment)
    process.communicate(timeout=300)
    assert process.returncode == 3


@pytest.fixture
def run_on_tpu_vms(launch, stand_in, tmp_path):
    """Runs tpu_vm.sh against the stand-in; gives what it did and what became of the VMs."""

    def run(events: list[str], *flags: str):
        state = tmp_path / "state"
        (tmp_path / "events").write_text("\n".join(events))
        calls = stand_in("gcloud", CLOUD.format(state=str(state), events=str(tmp_path / "events")))
        trained = stand_in("glm-jax")
        stand_in("sudo", "os.execvp(sys.argv[1], sys.argv[1:])")
        stand_in("docker", CONTAINER)
        stand_in("sleep")
        # The stand-in's gcloud says nothing to configure-docker, whose verb is no verb of VMs.
        done = launch(
            "tpu_vm.sh",
            "--name=glm",
            "--zone=z",
            "--accelerator_type=v5litepod-256",
            "--image=eu.example/p/glm",
            "--gin_file=some.gin",
            "--gin.train.run_folder='gs://b/it''s'",
            *flags,
        )
        verbs = [call[4] for call in map(literal_eval, calls.read_text().splitlines())]
        arguments = [literal_eval(line)[1:] for line in trained.read_text().splitlines()]
        return done, [verb for verb in verbs if verb in ("create", "delete", "ssh")], arguments

    return run


def test_tpu_vms_are_asked_for_used_and_deleted(run_on_tpu_vms):
    done, verbs, arguments = run_on_tpu_vms(["0 ACTIVE"], "--delete", "--", "--profile_steps=1:2")
    assert done.returncode == 0, done.stderr
    assert verbs == ["create", "ssh", "delete"]
    assert arguments == [
        [
            "pretrain",
            "--distributed",
            "--gin_file=some.gin",
            "--gin.train.run_folder='gs://b/it''s'",
            "--profile_steps=1:2",
        ]
    ]


def test_spot_vms_that_are_taken_away_are_asked_for_again(run_on_tpu_vms):
    events = ["255 SUSPENDED", "0 SUSPENDED", "0 ACTIVE"]
    done, verbs, arguments = run_on_tpu_vms(events, "--spot")
    assert done.returncode == 0, done.stderr
    assert verbs == ["create", "ssh", "delete", "create", "ssh", "delete", "create", "ssh"]
    assert len(arguments) == 3
    assert "cost money until: gcloud compute tpus queued-resources delete glm" in done.stdout


def test_a_run_that_fails_is_not_begun_again(run_on_tpu_vms):
    done, verbs, _ = run_on_tpu_vms(["1 ACTIVE"], "--spot", "--delete")
    assert done.returncode == 1
    assert verbs == ["create", "ssh"]
    assert "exit code 1" in done.stderr and "delete glm" in done.stderr


def test_asking_again_has_an_end(run_on_tpu_vms):
    done, verbs, _ = run_on_tpu_vms(["0 SUSPENDED"] * 3, "--spot", "--max_creations=2")
    assert done.returncode == 1
    assert verbs.count("create") == 2
    assert "2 times in vain" in done.stderr
