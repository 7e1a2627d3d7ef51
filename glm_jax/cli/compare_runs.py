"""Runs on one task compared: their scores, and that of the most frequent label.

python -m glm_jax.cli.compare_runs RUN...
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence

from glm_jax.configure import read_configuration
from glm_jax.errors import UsageError
from glm_jax.finetune.config import FinetuneRunConfig
from glm_jax.io.paths import resolve_path
from glm_jax.tasks import read_examples

SPLITS = ("dev", "test")


def comparison_lines(runs: Sequence[str]) -> Iterator[str]:
    """A line for the most frequent label of the training split, and one for each run.

    Runs of several seeds have the mean and the standard deviation.

    Raises:
      UsageError: a run has no results, or runs are on different tasks.
    """
    found = []
    for run in runs:
        folder = resolve_path(run, "RUN")
        if not (folder / "results.json").is_file():
            raise UsageError(f"{run} has no results.json: it is not a finished finetuning run")
        config = read_configuration([folder / "config.gin"], root=FinetuneRunConfig)
        found.append((run, config, json.loads((folder / "results.json").read_text())))
    first = found[0][1].task
    if any((c.task.name, c.task.data) != (first.name, first.data) for _, c, _ in found):
        raise UsageError("the runs are on different tasks")
    width = max(len("most frequent label"), *(len(run) for run in runs))
    yield f"{'accuracy in percent':<{width}}" + "".join(f"{split:>14}" for split in SPLITS)
    labels = {
        split: [example.label for example in read_examples(first.task, first.data, split)]
        for split in ("train", *SPLITS)
    }
    frequent = Counter(labels["train"]).most_common(1)[0][0]
    shares = [100 * labels[split].count(frequent) / len(labels[split]) for split in SPLITS]
    yield f"{'most frequent label':<{width}}" + "".join(f"{share:14.1f}" for share in shares)
    for run, _, results in found:
        deviation = results.get("deviation", {})
        scores = (
            _cell(results["accuracy"], deviation.get("accuracy")),
            _cell(results["test"]["accuracy"], deviation.get("test", {}).get("accuracy")),
        )
        yield f"{run:<{width}}" + "".join(f"{score:>14}" for score in scores)


def _cell(score: float, deviation: float | None) -> str:
    return f"{score:.1f}" if deviation is None else f"{score:.1f} ± {deviation:.1f}"


if __name__ == "__main__":
    try:
        for line in comparison_lines(sys.argv[1:]):
            print(line)
    except UsageError as error:
        sys.exit(f"glm-jax: {error}")
