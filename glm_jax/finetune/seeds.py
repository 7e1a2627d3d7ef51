"""Runs of several seeds, one after the other: mean and standard deviation of their results."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import PyTree

from glm_jax.errors import UsageError
from glm_jax.finetune.config import FinetuneBaseConfig
from glm_jax.finetune.outcome import FinetuneOutcome
from glm_jax.finetune.prepare import PreparedFinetuning
from glm_jax.finetune.results import RESULTS_FILE, metrics_of, result_lines, write_pictures
from glm_jax.io.files import folder_names, write_file
from glm_jax.io.paths import resolve_path
from glm_jax.train.run_folder import write_configuration

_SEED_FOLDER = re.compile(r"seed_\d+")

RunFunction = Callable[[FinetuneBaseConfig, PreparedFinetuning], FinetuneOutcome]


def seed_folder(config: FinetuneBaseConfig, seed: int) -> str:
    """The run folder of one of the seeds."""
    return os.path.join(config.finetune.run_folder, f"seed_{seed}")


def check_folder(folder: epath.Path, seeds: Sequence[int]) -> None:
    """Makes sure that a run folder has not been used for runs of the other kind.

    Args:
      folder: of the run.
      seeds: of a run of several; empty for a run of one.

    Raises:
      UsageError: it has several seeds where one is meant, or the other way round.
    """
    found = [name for name in folder_names(folder) if _SEED_FOLDER.fullmatch(name)]
    if found and not seeds:
        raise UsageError(
            f"{folder} has runs of several seeds; give one of them ({', '.join(found)}), or "
            "another folder"
        )
    if seeds and (folder / "checkpoints").is_dir():
        raise UsageError(
            f"{folder} has a run of one seed; give the runs of several seeds another folder"
        )


def finetune_seeds(
    config: FinetuneBaseConfig,
    ready: PreparedFinetuning,
    run: RunFunction,
    say: Callable[[str], None],
) -> FinetuneOutcome:
    """Trains once for each seed, in a run folder each; those that are done are not done again.

    Encoded examples, initial weights and compiled functions are shared.

    Args:
      config: with seeds.
      ready: the same configuration, prepared.
      run: trains, or resumes, one seed.
      say: reports which seed is trained, and what it has found.

    Returns:
      The outcome of the seed that was stopped, or, with the results of all, of the last one.
    """
    folder = resolve_path(config.finetune.run_folder, "finetune.run_folder")
    if jax.process_index() == 0:
        write_configuration(folder, config, ready.tokenizer)
    seeds, found = config.finetune.seeds, {}
    outcome = FinetuneOutcome(0, ready.num_steps, None)
    for number, seed in enumerate(seeds, 1):
        say(f"seed {seed}, {number} of {len(seeds)}: {seed_folder(config, seed)}")
        settings = dataclasses.replace(
            config.finetune, seed=seed, seeds=(), run_folder=seed_folder(config, seed)
        )
        # Training gives the memory of the weights that it starts from away.
        last = number == len(seeds)
        params_of = ready.params_of if last else partial(copied_params, ready)
        outcome = run(
            dataclasses.replace(config, finetune=settings),
            dataclasses.replace(ready, params_of=params_of),
        )
        if outcome.results is None:
            return dataclasses.replace(outcome, seed=seed)
        found[seed] = outcome.results
        for text in result_lines({n: v for n, v in outcome.results.items() if n != "published"}):
            say(text)
    results = combined_results(found)
    if jax.process_index() == 0:
        runs = [resolve_path(seed_folder(config, seed)) for seed in seeds]
        write_pictures(folder, runs, results)
        write_file(folder / RESULTS_FILE, (json.dumps(results, indent=2) + "\n").encode())
    return dataclasses.replace(outcome, results=results)


def copied_params(ready: PreparedFinetuning, seed: int) -> PyTree:
    """The parameters that a run starts from, in memory of their own."""
    return jax.tree.map(jnp.copy, ready.params_of(seed))


def combined_results(found: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of the metrics in place of each, their standard deviation, and the sum of counts.

    Args:
      found: the results of at least two seeds.

    Returns:
      As the results of one run, with `deviation` (of a sample: divided by the number of seeds less
      one) and, in `seeds`, the results of each.
    """
    all_results = list(found.values())
    first = all_results[0]
    means: dict[str, Any] = {"task": first["task"]}
    deviations: dict[str, Any] = {}
    for name in metrics_of(first):
        means[name], deviations[name] = _spread([r[name] for r in all_results])
    if "test" in first:
        spreads = {name: _spread([r["test"][name] for r in all_results]) for name in first["test"]}
        means["test"] = {name: mean for name, (mean, _) in spreads.items()}
        deviations["test"] = {name: deviation for name, (_, deviation) in spreads.items()}
    if "confusion" in first:
        counts = np.sum([results["confusion"]["counts"] for results in all_results], axis=0)
        means["confusion"] = {**first["confusion"], "counts": counts.tolist()}
    means["deviation"] = deviations
    if "published" in first:
        means["published"] = first["published"]
    means["seeds"] = {
        str(seed): {name: value for name, value in results.items() if name not in _OF_ALL}
        for seed, results in found.items()
    }
    return means


# What is not listed for every seed.
_OF_ALL = ("task", "published", "confusion")


def _spread(values: Sequence[float]) -> tuple[float, float]:
    return statistics.fmean(values), statistics.stdev(values)
