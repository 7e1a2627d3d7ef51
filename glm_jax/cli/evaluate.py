"""Evaluate the newest checkpoint of a run on held-out text, or any checkpoint on a task.

    glm-jax evaluate runs/demo --num_batches=200
    glm-jax evaluate runs/rte_large --task=rte --data=data/RTE

Prints loss in nats per target and accuracy, in total and per objective, and the unigram entropy of
the same targets. --gin.SECTION.NAME=VALUE overrides the run's own configuration, for instance
--gin.data.store=OTHER to evaluate on another store of the same tokenizer (with
--gin.data.stores={} too, where the run mixed several).

On a task, the best checkpoint of a finetuned run answers as it was trained to, and any other
checkpoint without training; --gin.task.NAME=VALUE, such as --gin.task.pattern=1, says how it is
asked. Tasks that write texts (xsum, cnn_dm, gigaword, squad_generation, squad, customization and
others) write them to --outputs, which a later call continues, and report ROUGE, or exact matches
and F1; --gin.seq2seq.source_length=N and --gin.generation.beams=N say how. The tasks lambada,
wikitext, ptb and language_model score a file: accuracy of last words, or perplexities by token,
word and byte; --gin.language_model.stride=N and --gin.language_model.unidirectional=True say how.
Without a saved tokenizer, --gin.tokenizer.kind=bert --gin.tokenizer.files="('vocab.txt',)".

--task=all evaluates on every task whose files are in a sub-folder of --data with the task's name,
and makes one table, which is in --outputs (CHECKPOINT_all) as results.json and results.md, too.
Settings go to the tasks that have them. A call that was interrupted continues with what is missing;
a task that fails does not stop the others, and is named at the end (exit code 1).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import partial
from typing import Any

from glm_jax.cli import pretrain
from glm_jax.cli.evaluate_task import (
    CHOICES,
    LANGUAGE_MODEL,
    TEXTS,
    TaskEvaluation,
    evaluate_by_kind,
    kind_of,
)
from glm_jax.cli.show import write_json
from glm_jax.errors import UsageError
from glm_jax.io.hub import checkpoint_path

HELP = "loss and accuracy of a run's newest checkpoint on held-out text"
TAKES_GIN = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument(
        "run_folder",
        metavar="CHECKPOINT",
        type=partial(checkpoint_path, name="CHECKPOINT"),
        help="a run folder; with --task any kind of checkpoint",
    )
    parser.add_argument(
        "--task",
        metavar="NAME",
        help="a task, such as rte, or a Python file with one; all for all tasks in --data",
    )
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        help="folder with the files of the task, tfds:NAME, or the file that is scored",
    )
    parser.add_argument(
        "--split", help="part of the store to read (validation), or split of the task (dev)"
    )
    parser.add_argument("--num_batches", type=int, metavar="N", help="batches to evaluate on")
    parser.add_argument(
        "--picture", metavar="FILE", help="draw the loss by position and document (.png)"
    )
    parser.add_argument(
        "--outputs",
        metavar="FILE",
        help="file of the texts that a task writes (.jsonl), or folder of the results of all "
        "tasks; continued where it is there",
    )
    parser.add_argument(
        "--json",
        nargs="?",
        const="-",
        metavar="FILE",
        help="print one JSON object, or write it to a file",
    )
    pretrain.add_process_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Restores, evaluates, prints."""
    task: str = arguments.task or ""
    kind = None if task in ("", "all") else kind_of(task)
    if kind != TEXTS and (arguments.coordinator is not None or arguments.distributed):
        raise UsageError(
            "evaluation in several processes is for tasks that write texts, such as --task=xsum"
        )
    if task == "all":
        from glm_jax.cli.evaluate_all import run_all

        return run_all(arguments)
    if kind != TEXTS and arguments.outputs is not None:
        raise UsageError("--outputs is for tasks that write texts, such as --task=xsum")
    if kind is None:
        return _run_on_text(arguments)
    _check_flags(arguments, kind)
    asked = TaskEvaluation(
        arguments.run_folder,
        task,
        arguments.data or "",
        arguments.split or "",
        arguments.bindings,
        outputs=arguments.outputs or "",
        picture=arguments.picture or "",
    )
    found = evaluate_by_kind(asked, partial(pretrain.join, arguments))
    if found is not None:
        _show(arguments.json, found.found, found.line)
    return 0


def _check_flags(arguments: argparse.Namespace, kind: str) -> None:
    """Raises UsageError where a flag is not for tasks of this kind."""
    task = arguments.task
    if kind == CHOICES and arguments.num_batches is not None:
        raise UsageError("--num_batches is for held-out text, not for --task")
    refused = {
        CHOICES: (("picture",), "which chooses answers"),
        TEXTS: (("num_batches", "picture"), "which writes texts"),
        LANGUAGE_MODEL: (("num_batches", "split"), "which scores a file"),
    }
    flags, why = refused[kind]
    for flag in flags:
        if getattr(arguments, flag) is not None:
            raise UsageError(f"--{flag} is not for --task={task}, {why}")


def _run_on_text(arguments: argparse.Namespace) -> int:
    """Evaluates a pretraining run on a part of its store."""
    if arguments.data is not None:
        raise UsageError("--data is for --task, which is not given")
    arguments.split = arguments.split or "validation"
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
    found = {"split": arguments.split, **evaluation.metrics()}
    _show(arguments.json, found, f"{arguments.split} {evaluation.describe()}")
    return 0


def _show(json_file: str | None, found: Mapping[str, Any], line: str) -> None:
    """Prints the line, or the object where it was asked for; a file gets the object too."""
    if json_file is not None:
        write_json(json_file, found)
    if json_file != "-":
        print(line)
