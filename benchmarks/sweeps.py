"""What a sweep's driver costs, how fast trials start, and whether TPE beats random search.

    python benchmarks/sweeps.py overhead --trials=50 --seconds=10 --parallel=4
    python benchmarks/sweeps.py search --points=30 --seeds=10
    python benchmarks/sweeps.py starts --store=stores/embedded --trials=4

`overhead` runs trials that only sleep, once by the driver and once by a plain loop with the same
number at a time, and compares the times. `starts` runs trials of the demo's size that differ in
their learning rates, and measures each until its first step has been logged. `search` draws points
for a function whose values are known at once: a loss with a narrow valley in four settings, of
which two hardly matter, with noise.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

# Sleeps, and leaves what a run leaves: its metrics and a checkpoint of the last step.
SLEEPER = """
import json, os, sys, time
time.sleep({seconds})
values = dict(a[6:].partition("=")[::2] for a in sys.argv if a.startswith("--gin."))
folder = values["train.run_folder"].strip("'")
os.makedirs(folder + "/checkpoints/1000000")
with open(folder + "/metrics.jsonl", "w") as file:
    file.write(json.dumps(dict(step=1, kind="validation", loss=1.0)) + "\\n")
"""
RUN = """
model.vocab_size = 512
model.num_layers = 2
model.hidden_size = 32
model.num_attention_heads = 2
model.max_sequence_length = 32
data.sequence_length = 32
data.batch_size = 8
data.store = {folder!r}
optimizer.learning_rate = 1e-3
optimizer.decay_steps = 100
train.num_steps = 100
train.run_folder = 'unused'
sweep.folder = {folder!r}
"""
SEARCH = """
sweep.ranges = {
    'optimizer.learning_rate': (1e-5, 1e-1, 'log'),
    'optimizer.weight_decay': (1e-3, 1.0, 'log'),
    'model.hidden_dropout': (0.0, 0.5),
    'optimizer.warmup_fraction': (0.0, 0.5),
}
"""


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("overhead", "search", "starts"))
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--store", default="stores/embedded")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--points", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    if arguments.what == "overhead":
        overhead(arguments.trials, arguments.seconds, arguments.parallel)
    elif arguments.what == "starts":
        starts(os.path.abspath(arguments.store), arguments.trials)
    else:
        search(arguments.points, arguments.seeds)


def plan_of(folder: Path, text: str):
    """The plan of a sweep in a folder."""
    from glm_jax.configure import read_sweep
    from glm_jax.sweeps.plan import Plan

    file = folder / "sweep.gin"
    file.write_text(RUN.format(folder=str(folder / "sweep")) + text)
    return Plan(*read_sweep([file]), str(file), 1)


def overhead(num_trials: int, seconds: float, parallel: int) -> None:
    """The time of the driver compared with that of a loop."""
    from glm_jax.sweeps.backends import local_backend
    from glm_jax.sweeps.devices import Slot
    from glm_jax.sweeps.run import run_sweep

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sweep").mkdir()
        program = folder / "sleeper.py"
        program.write_text(SLEEPER.format(seconds=seconds))
        command = (sys.executable, "-S", str(program))
        by_hand = time_by_hand(command, folder, num_trials, parallel)
        seeds = tuple(range(num_trials))
        # 1000000 steps: the checkpoint that the sleeper leaves.
        plan = plan_of(folder, f"sweep.seeds = {seeds}\ntrain.num_steps = 1000000\n")
        slots = (Slot({}, frozenset(), 1),) * parallel
        backend = local_backend(plan, slots, os.environ, command)
        start = time.monotonic()
        run_sweep(plan, backend, lambda line: None)
        by_driver = time.monotonic() - start
    print(
        f"{num_trials} trials of {seconds:g} s, {parallel} at a time: {by_hand:.1f} s by hand, "
        f"{by_driver:.1f} s by the driver, {by_driver / by_hand - 1:+.1%}"
    )


def time_by_hand(command: tuple[str, ...], folder: Path, num_trials: int, parallel: int) -> float:
    """Seconds that a plain loop takes, which starts the next trial when one ends."""
    start = time.monotonic()
    running: list[subprocess.Popen[bytes]] = []
    for number in range(num_trials):
        while len(running) == parallel:
            running = [process for process in running if process.poll() is None]
            time.sleep(0.01)
        flag = f"--gin.train.run_folder={str(folder / 'hand' / str(number))!r}"
        running.append(subprocess.Popen([*command, flag]))
    for process in running:
        process.wait()
    return time.monotonic() - start


STARTS = """
include 'configs/runs/demo.gin'
data.store = {store!r}
train.num_steps = 20
train.log_every = 1
evaluation.num_batches = 1
sweep.choices = {{'optimizer.learning_rate': {rates}}}
sweep.folder = {folder!r}
"""
IMPORTS = """
from glm_jax import environment
environment.leave_out_keras()
import rich.console, glm_jax.configure, glm_jax.train.pretrain
"""


def starts(store: str, num_trials: int) -> None:
    """How long trials take until their first step, of which the first one finds no cache."""
    from glm_jax.configure import read_sweep
    from glm_jax.sweeps.backends import local_backend
    from glm_jax.sweeps.devices import Slot
    from glm_jax.sweeps.plan import Plan
    from glm_jax.sweeps.run import run_sweep

    with tempfile.TemporaryDirectory() as name:
        rates = tuple(1e-4 * (number + 1) for number in range(num_trials))
        file = Path(name) / "sweep.gin"
        file.write_text(STARTS.format(store=store, rates=rates, folder=f"{name}/sweep"))
        Path(name, "sweep").mkdir()
        plan = Plan(*read_sweep([file]), str(file), 1)
        backend = local_backend(plan, (Slot({}, frozenset(), 1),), os.environ)
        measured: list[tuple[float, float]] = []
        watch_starts(backend, measured)
        run_sweep(plan, backend, lambda line: None)
    imports = cpu_seconds_of_imports()
    for number, (seconds, cpu_seconds) in enumerate(measured):
        print(f"trial {number + 1}: first step after {seconds:.1f} s, {cpu_seconds:.1f} s of CPU")
    wall, cpu = (
        (values[0], statistics.median(values[1:])) for values in zip(*measured, strict=True)
    )
    print(f"time: first {wall[0]:.1f} s, later {wall[1]:.1f} s: {wall[0] / wall[1]:.1f}x")
    print(f"CPU time: first {cpu[0]:.1f} s, later {cpu[1]:.1f} s: {cpu[0] / cpu[1]:.1f}x")
    print(
        f"without imports ({imports:.1f} s, which later trials don't repeat): first "
        f"{cpu[0] - imports:.1f} s: {(cpu[0] - imports) / cpu[1]:.1f}x"
    )


def watch_starts(backend, measured: list[tuple[float, float]]) -> None:
    """Appends the time and the CPU time of every trial's start, from launch to logged step."""
    start = backend.start

    def start_and_watch(trial, slot):
        job, begin = start(trial, slot), time.monotonic()
        metrics = Path(trial.config.train.run_folder) / "metrics.jsonl"

        def watch():
            while not (metrics.exists() and metrics.stat().st_size):
                time.sleep(0.02)
            fields = Path(f"/proc/{job.record['process']}/stat").read_text().rpartition(")")[2]
            ticks = sum(map(int, fields.split()[11:15]))
            measured.append((time.monotonic() - begin, ticks / os.sysconf("SC_CLK_TCK")))

        threading.Thread(target=watch, daemon=True).start()
        return job

    backend.start = start_and_watch


def cpu_seconds_of_imports() -> float:
    """What a process needs to import what a trial needs."""
    before = os.times()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    after = os.times()
    return (after[2] + after[3]) - (before[2] + before[3])


def search(num_points: int, num_seeds: int) -> None:
    """The best value that each sampler finds, seed by seed."""
    wins = 0
    for seed in range(num_seeds):
        found = {name: best_found(name, num_points, seed) for name in ("random", "tpe")}
        wins += found["tpe"] < found["random"]
        print(f"seed {seed}: random {found['random']:.4f}, tpe {found['tpe']:.4f}", flush=True)
    print(f"TPE is better in {wins} of {num_seeds} seeds")


def best_found(sampler: str, num_points: int, seed: int) -> float:
    """The loss, without its noise, of the point that a search takes for the best."""
    from optuna.trial import TrialState

    from glm_jax.sweeps.drivers import Drivers
    from glm_jax.sweeps.search import Search
    from glm_jax.sweeps.storage import open_storage, open_study
    from glm_jax.sweeps.study import SweepStudy

    noise = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = (
            f"{SEARCH}sweep.sampler = {sampler!r}\nsweep.num_points = {num_points}\n"
            f"sweep.sampler_seed = {seed}\n"
        )
        plan = plan_of(folder, text)
        storage = open_storage("", str(folder))
        study_id = open_study(storage, "search", plan.goal)
        drivers = Drivers(storage, study_id)
        drivers.beat()
        study = SweepStudy(storage, study_id, drivers)
        trials = Search(plan, study)
        observed = []
        for trial in trials.trials():
            claimed = study.claim(trial, trials.distributions)
            assert claimed is not None
            exact = loss_of(trial.point)
            measured = exact + noise.gauss(0, 0.01)
            study.finish(claimed, TrialState.COMPLETE, measured)
            observed.append((measured, exact))
    return min(observed)[1]


def loss_of(point: Mapping[str, float]) -> float:
    """A made-up validation loss: the best weight decay depends on the learning rate."""
    rate = math.log10(point["optimizer.learning_rate"]) + 3
    decay = math.log10(point["optimizer.weight_decay"]) + 1 + 0.5 * rate
    dropout = point["model.hidden_dropout"] - 0.1
    warmup = point["optimizer.warmup_fraction"] - 0.1
    return 2.5 + 0.3 * rate**2 + 0.1 * decay**2 + 0.2 * dropout**2 + 0.05 * warmup**2


if __name__ == "__main__":
    main()
