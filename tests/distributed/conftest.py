"""Runs of several processes."""

import json
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import Popen

import pytest


@pytest.fixture(scope="session")
def start_processes(start_command) -> Callable[..., list[Popen[str]]]:
    """Starts `glm-jax` with arguments as a run of some processes, each with some devices."""

    def start(arguments: Sequence[object], count: int, devices: int = 1) -> list[Popen[str]]:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        together = [f"--coordinator={address}", f"--num_processes={count}"]
        return [
            start_command([*arguments, *together, f"--process_id={number}"], devices)
            for number in range(count)
        ]

    return start


def train_records(run_folder: Path) -> list[dict]:
    """The training steps that a run has logged so far; the last line may be half written."""
    path = run_folder / "metrics.jsonl"
    if not path.exists():
        return []
    lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
    return [record for record in map(json.loads, lines) if record["kind"] == "train"]
