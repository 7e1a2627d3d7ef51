"""What the runs of a sweep leave, as tests read it."""

from __future__ import annotations

from pathlib import Path

from glm_jax.train.metrics import read_metrics


def starts(folder: Path) -> list[tuple[str, int]]:
    """Every start of a trial's run by the stand-in, with the step it resumed from."""
    lines = (folder / "trials" / "starts.txt").read_text().splitlines()
    return [(name, int(step)) for name, step in (line.rsplit(" ", 1) for line in lines)]


def steps_of(run_folder: Path) -> list[int]:
    """The steps that a run has logged, in order."""
    return [r["step"] for r in read_metrics(run_folder / "metrics.jsonl") if r["kind"] == "train"]
