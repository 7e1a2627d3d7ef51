"""Scoring ten answers to a text: the text once for all of them, and once for each.

    python benchmarks/evaluation.py

The rows are those of ReCoRD: a passage of nearly 512 tokens and a question, and ten answers of 2 to
6 tokens, for GLM-Base's sizes with random weights in float32. Both ways run the program that
`glm-jax evaluate` runs, on batches that differ in `share_contexts` only, turn by turn in one
process; the median counts. --truncated has passages that are too long: there, answers of
different lengths have different contexts, and only those of one length share them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "configs" / "runs" / "glm_base.gin"
LONGEST_ANSWER = 6


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="measured batches of each way")
    parser.add_argument("--examples", type=int, default=2, help="examples of a batch")
    parser.add_argument("--choices", type=int, default=10)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--truncated", action="store_true", help="passages that are too long")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    os.environ["JAX_PLATFORMS"] = "cpu"

    import numpy as np

    from glm_jax.finetune.shared_contexts import share_contexts

    score = scorer(arguments.layers, arguments.length)
    batch = make_batch(
        arguments.examples, arguments.choices, arguments.length, truncated=arguments.truncated
    )
    ways = {"a text for each answer": batch, "a text for all": share_contexts(batch)}
    found: dict[str, Any] = {name: score(rows) for name, rows in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, rows in ways.items():
            started = time.perf_counter()
            score(rows)
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(measured) for name, measured in seconds.items()}
    naive, shared = medians.values()
    print(
        f"{arguments.examples} examples of {arguments.choices} answers, {arguments.length} tokens, "
        f"{arguments.threads} threads"
    )
    for name, median in medians.items():
        speed = arguments.examples * arguments.choices / median
        print(f"{name:24} {median:7.3f} s (fastest {min(seconds[name]):.3f})  {speed:6.2f} rows/s")
    ratios = [n / s for n, s in zip(*seconds.values(), strict=True)]
    print(f"ratio {naive / shared:.2f} (of pairs: {min(ratios):.2f} to {max(ratios):.2f})")
    difference, mean = np.abs(np.subtract(*found.values())).max(), np.mean(list(found.values()))
    print(f"maximum difference {difference:.2e} nats, of scores around {mean:.1f}")


def make_batch(
    num_examples: int, num_choices: int, length: int, *, truncated: bool
) -> Mapping[str, Any]:
    """Examples of random tokens as `encode_example` makes their rows."""
    import numpy as np

    from glm_jax.tasks.sequence import Layout, cloze_row, collate_choices, stack

    random = np.random.default_rng(0)
    special = {"ENC": 101, "MASK": 103, "sop": 1, "eop": 2, "eos": 0}
    layout = Layout(special, length)
    examples = []
    for _ in range(num_examples):
        text = random.integers(1000, 30_000, length).tolist()
        rows = []
        for choice in range(num_choices):
            size = 2 + choice % (LONGEST_ANSWER - 1)
            answer = [*random.integers(1000, 30_000, size - 1).tolist(), special["eop"]]
            kept = length - 3 - (size if truncated else LONGEST_ANSWER)
            rows.append(cloze_row(layout, [*text[:kept], special["MASK"]], answer))
        examples.append(stack(rows) | {"label": np.asarray(0, np.int32)})
    return collate_choices(examples) | {"weight": np.ones(num_examples, np.float32)}


def scorer(num_layers: int, length: int) -> Any:
    """A function from a batch to the scores of its choices."""
    import jax
    import numpy as np

    from glm_jax.configure import read_configuration
    from glm_jax.finetune.model_scores import Scorer
    from glm_jax.finetune.program import make_finetune_program
    from glm_jax.model import GLM
    from glm_jax.parallel.batches import to_devices
    from glm_jax.parallel.mesh import MeshConfig, make_mesh

    settings = [f"model.num_layers={num_layers}", "model.compute_dtype='float32'"]
    settings += [f"model.max_sequence_length={max(length, 512)}", "model.remat='none'"]
    config = read_configuration([MODEL], settings)
    mesh = make_mesh(MeshConfig())
    program = make_finetune_program(
        Scorer(GLM(config.model), answer_length=LONGEST_ANSWER), {}, config.optimizer, mesh
    )
    params = program.initialize(0).params

    def score(batch: Mapping[str, Any]) -> Any:
        with jax.set_mesh(mesh):
            (on_devices,) = to_devices([batch], mesh, len(batch["weight"]))
            return np.asarray(program.scores(params, on_devices))

    return score


if __name__ == "__main__":
    main()
