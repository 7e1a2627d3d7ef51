"""Trials through the launch scripts: the commands that they print, and stand-ins that they call."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from glm_jax.configure import read_sweep
from glm_jax.sweeps.backends import make_backend
from glm_jax.sweeps.jobs import Ended
from glm_jax.sweeps.plan import Plan
from glm_jax.sweeps.queue import Gke

GKE = (
    "sweep.backend = 'gke'",
    "sweep.launch = {'cluster': 'c', 'accelerator_type': 'v5p-8', 'image': 'r/p/glm', "
    "'num_slices': 2}",
)
TPU_VM = (
    "sweep.backend = 'tpu_vm'",
    "sweep.launch = {'zone': 'z', 'accelerator_type': 'v5p-8', 'image': 'r/p/glm', 'spot': True}",
)
SLURM = ("sweep.backend = 'slurm'", "sweep.launch = {'nodes': 2, 'gpus_per_node': 4}")
SEEDS = "sweep.seeds = (1, 2)"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (SLURM, ["sbatch", "--nodes=2", "--ntasks-per-node=4"]),
        (GKE, ["xpk", "workload", "create", "--cluster=c", "--num-slices=2"]),
        (TPU_VM, ["gcloud", "--spot"]),
    ],
    ids=["slurm", "gke", "tpu_vm"],
)
def test_a_dry_run_prints_what_the_scripts_would_do(lines, said, write_sweep, run_here, tmp_path):
    done = run_here(["sweep", "run", write_sweep(SEEDS, *lines), "--dry_run"])
    assert done.returncode == 0, done.stderr
    for word in said:
        assert done.stdout.count(word) >= 2, word
    folder = tmp_path / "sweep"
    assert f"--gin_file={folder}/base.gin" in done.stdout
    for seed in (1, 2):
        assert f"{folder}/trials/seed={seed}" in done.stdout
        assert f"--gin.train.seed={seed}" in done.stdout
    assert not folder.exists()


def test_a_local_dry_run_prints_the_commands(write_sweep, run_here, tmp_path):
    done = run_here(["sweep", "run", write_sweep(SEEDS), "--dry_run"])
    commands = [line for line in done.stdout.splitlines() if line.startswith("glm-jax pretrain")]
    assert len(commands) == 2
    arguments = shlex.split(commands[0])
    assert f"--gin.train.run_folder='{tmp_path}/sweep/trials/seed=1'" in arguments


def plan_of(file: Path) -> Plan:
    return Plan(*read_sweep([file]), str(file), None)


def command(folder: Path, name: str, body: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


def test_workloads_are_created_and_watched(write_sweep, tmp_path):
    folder = tmp_path / "commands"
    folder.mkdir()
    log = tmp_path / "log"
    command(folder, "xpk", f'echo "$@" >> {log}')
    command(folder, "kubectl", f"cat {tmp_path}/state")
    plan = plan_of(write_sweep(SEEDS, *GKE))
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    gke = Gke(plan, environment, poll_seconds=0)
    job = gke.start(plan.trials[0], 0)
    name = job.record["name"]
    assert f"--workload={name}" in log.read_text() and len(name) <= 40
    (tmp_path / "state").write_text("")
    assert job.poll() is None
    adopted = gke.adopt(job.record)
    assert adopted is not None and adopted.record == job.record
    (tmp_path / "state").write_text("Completed")
    assert job.poll() == Ended(0)
    assert gke.adopt(job.record) is None
    (tmp_path / "state").write_text("Failed")
    assert job.poll() == Ended(1)
    command(folder, "kubectl", "echo 'Error from server (NotFound)' >&2; exit 1")
    assert job.poll() == Ended(None)
    command(folder, "kubectl", "echo 'connection refused' >&2; exit 1")
    assert job.poll() is None


def test_each_slot_has_vms_of_its_own(write_sweep):
    plan = plan_of(write_sweep(SEEDS, "sweep.parallel = 2", *TPU_VM))
    backend = make_backend(plan, os.environ, start=False)
    first, second = (backend.commands(plan.trials[0], slot) for slot in (0, 1))
    assert first.replace("-0 ", "-1 ") == second.replace("-0 ", "-1 ") and first != second


def test_a_missing_command_is_named(write_sweep, run_here, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run_here(["sweep", "run", write_sweep(SEEDS, *GKE)])
    assert done.returncode == 2
    assert "the command xpk is not on the PATH of this machine" in done.stderr
