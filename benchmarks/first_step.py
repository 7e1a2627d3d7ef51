"""Time from the command to the first step of the demo, by the clock and of the processor.

    python benchmarks/first_step.py --store=stores/embedded
    python benchmarks/first_step.py --store=stores/embedded --repeats=3 --checkout=../before

Starts `glm-jax pretrain` of configs/runs/demo.gin in a new run folder until its first step has been
reported: once without programs that an earlier start has compiled, and once with those that this
one has kept. With several checkouts, each with a .venv of its own, they take turns, so that other
load on the machine affects all of them equally. The fastest start of each counts.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

SETTINGS = ("train.log_every=1", "evaluation.fill_examples=0")


class Start(NamedTuple):
    """Seconds until the first step: by the clock, and of all threads."""

    wall: float
    cpu: float


def start_once(checkout: Path, store: Path, cache: str) -> Start:
    """Starts a run, with this folder for the user's cache, and ends it after its first step."""
    environment = os.environ | {"XDG_CACHE_HOME": cache}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    with tempfile.TemporaryDirectory() as folder:
        run = f"{folder}/run"
        bindings = [*SETTINGS, f"data.store={str(store)!r}", f"train.run_folder={run!r}"]
        command = [str(checkout / ".venv/bin/glm-jax"), "pretrain"]
        command += ["--gin_file=configs/runs/demo.gin", *(f"--gin.{b}" for b in bindings)]
        began = time.perf_counter()
        with subprocess.Popen(
            command, cwd=checkout, env=environment, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if re.match(r"step +1/", line):
                    break
            else:
                raise SystemExit("the run ended before its first step")
            start = Start(time.perf_counter() - began, cpu_seconds(process.pid))
            process.kill()
    return start


def cpu_seconds(process: int) -> float:
    """Processor time of a process in seconds, from Linux's /proc."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Prints the fastest start of each checkout."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--checkout", type=Path, action="append", default=[])
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    checkouts = [*arguments.checkout, Path(__file__).parents[1]]
    starts: dict[tuple[Path, str], list[Start]] = {}
    for _ in range(arguments.repeats):
        for checkout in checkouts:
            with tempfile.TemporaryDirectory() as cache:
                for which in ("first", "second"):
                    start = start_once(checkout.resolve(), arguments.store.resolve(), cache)
                    starts.setdefault((checkout, which), []).append(start)
    for (checkout, which), some in starts.items():
        best = min(some)
        print(
            f"{checkout}, {which} start: {best.wall:.1f} s until the first step, "
            f"{best.cpu:.1f} of processors"
        )


if __name__ == "__main__":
    main()
