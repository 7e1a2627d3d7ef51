"""Takes the place of `glm-jax pretrain` in a sweep: seconds of JAX become milliseconds.

Leaves what a run leaves: `metrics.jsonl`, a checkpoint of every step, and the lock while it runs.
The loss follows from the settings. `starts.txt` beside the run folders gets a line for every start,
with the step it resumes from.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

STEP_SECONDS = float(os.environ.get("STAND_IN_STEP_SECONDS", "0.02"))


def settings() -> dict[str, str]:
    """The settings of the flags and of the files before them."""
    found = {}
    for argument in sys.argv[1:]:
        if argument.startswith("--gin_file="):
            for line in Path(argument.removeprefix("--gin_file=")).read_text().splitlines():
                name, _, value = line.partition(" = ")
                found[name] = value
        elif argument.startswith("--gin."):
            name, _, value = argument.removeprefix("--gin.").partition("=")
            found[name] = value
    return found


def main() -> int:
    """Trains nothing, but looks as if."""
    stopped = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    values = settings()
    folder = Path(values["train.run_folder"].strip("'"))
    rate = float(values["optimizer.learning_rate"])
    num_steps = int(values["train.num_steps"])
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    first = max((int(path.name) for path in checkpoints.iterdir()), default=0)
    with open(folder.parent / "starts.txt", "a") as starts:
        starts.write(f"{folder.name} {first}\n")
    if rate > 1:
        print("glm-jax: step 1: loss nan; update skipped", file=sys.stderr)
        return 1
    for step in range(first + 1, num_steps + 1):
        time.sleep(STEP_SECONDS)
        loss = 10 * (rate - 0.01) ** 2 + 1 / step + int(values.get("train.seed", 0)) / 1000
        with open(folder / "metrics.jsonl", "a") as metrics:
            for kind in ("train", "validation"):
                metrics.write(json.dumps({"step": step, "kind": kind, "loss": loss}) + "\n")
        (checkpoints / str(step)).mkdir()
        if stopped:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
