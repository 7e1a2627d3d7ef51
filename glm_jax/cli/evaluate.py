"""Evaluate the newest checkpoint of a run on held-out text.

    glm-jax evaluate runs/demo --num_batches=200

Prints loss in nats per target and accuracy, in total and per objective, and the unigram entropy of
the same targets. --gin.SECTION.NAME=VALUE overrides the run's own configuration, for instance
--gin.data.store=OTHER to evaluate on another store of the same tokenizer (with
--gin.data.stores={} too, where the run mixed several).
"""

from __future__ import annotations

import argparse
import json
from functools import partial

from glm_jax.errors import UsageError
from glm_jax.io.paths import resolve_path

HELP = "loss and accuracy of a run's newest checkpoint on held-out text"
TAKES_GIN = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument(
        "run_folder", metavar="RUN", type=partial(resolve_path, name="RUN"), help="a run folder"
    )
    parser.add_argument("--split", default="validation", help="part of the store to read")
    parser.add_argument("--num_batches", type=int, metavar="N", help="batches to evaluate on")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Restores, evaluates, prints."""
    folder = arguments.run_folder
    if not (folder / "config.gin").is_file():
        raise UsageError(f"{folder} is not a run folder: it has no config.gin")
    overrides = list(arguments.bindings)
    if arguments.num_batches is not None:
        overrides.append(f"evaluation.num_batches={arguments.num_batches}")

    from glm_jax.configure import read_configuration

    config = read_configuration([folder / "config.gin"], overrides)

    import jax

    from glm_jax.convert.load import load_glm
    from glm_jax.train.evaluate import evaluate
    from glm_jax.train.preflight import check_evaluation
    from glm_jax.train.program import compile_evaluation
    from glm_jax.train.resume import check_dimensions

    inputs, mesh = check_evaluation(config, folder, arguments.split)
    with jax.set_mesh(mesh):
        model, params = load_glm(folder, mesh=mesh)
        check_dimensions(vars(model.config), config.model, f"the newest checkpoint of {folder}")
        shardings = jax.tree.map(lambda array: array.sharding, params)
        evaluation = evaluate(
            compile_evaluation(
                model,
                shardings,
                mesh,
                micro_batches=config.train.accumulation_steps,
                loss_chunks=config.train.loss_chunks,
            ),
            params,
            inputs.read(arguments.split, mesh, num_steps=config.evaluation.num_batches),
        )
    if arguments.json:
        print(json.dumps({"split": arguments.split, **evaluation.metrics()}))
    else:
        print(f"{arguments.split} {evaluation.describe()}")
    return 0
