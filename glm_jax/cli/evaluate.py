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
Without a saved tokenizer,
--gin.tokenizer.kind=bert --gin.tokenizer.files="('vocab.txt',)".
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from typing import TYPE_CHECKING

from etils import epath

from glm_jax.cli import pretrain
from glm_jax.errors import UsageError
from glm_jax.io.files import write_file
from glm_jax.io.paths import resolve_path
from glm_jax.io.tfds import TFDS_PREFIX
from glm_jax.language_model.tasks import LANGUAGE_MODEL_TASKS

if TYPE_CHECKING:
    from glm_jax.seq2seq.evaluate import Seq2SeqResult

HELP = "loss and accuracy of a run's newest checkpoint on held-out text"
TAKES_GIN = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument(
        "run_folder",
        metavar="CHECKPOINT",
        type=partial(resolve_path, name="CHECKPOINT"),
        help="a run folder; with --task any kind of checkpoint",
    )
    parser.add_argument(
        "--task", metavar="NAME", help="a task, such as rte, or a Python file with one"
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
        help="file of the texts that a task writes (.jsonl), continued where it is there",
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
    if arguments.task in LANGUAGE_MODEL_TASKS:
        return _run_language_model(arguments)
    if arguments.task is not None and _writes_texts(arguments.task):
        return _run_seq2seq(arguments)
    if arguments.outputs is not None:
        raise UsageError("--outputs is for tasks that write texts, such as --task=xsum")
    if arguments.coordinator is not None or arguments.distributed:
        raise UsageError(
            "evaluation in several processes is for tasks that write texts, such as --task=xsum"
        )
    if arguments.task is not None:
        return _run_task(arguments)
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


def _data_of(data: str) -> str:
    """What --data names: a data set of TFDS, or a path from here."""
    return data if data.startswith(TFDS_PREFIX) else str(resolve_path(data, "--data"))


def _run_task(arguments: argparse.Namespace) -> int:
    from glm_jax.configure import read_configuration
    from glm_jax.finetune.config import FinetuneRunConfig
    from glm_jax.finetune.evaluate import evaluate_task, untrained_settings
    from glm_jax.finetune.recorded import recorded_task

    if arguments.num_batches is not None:
        raise UsageError("--num_batches is for held-out text, not for --task")
    split = arguments.split or "dev"
    bindings = list(arguments.bindings)
    if arguments.data is not None:
        bindings.append(f"task.data={_data_of(arguments.data)!r}")
    checkpoint, task = arguments.run_folder, arguments.task
    gin_files = [checkpoint / "config.gin"] if recorded_task(checkpoint, "task") == task else []
    settings = [] if gin_files else untrained_settings(checkpoint, task)
    config = read_configuration(gin_files, [*settings, *bindings], FinetuneRunConfig)
    found = evaluate_task(config, checkpoint, split)
    shown = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
    _show(arguments.json, {"task": arguments.task, "split": split, **found}, f"{split} {shown}")
    return 0


def _run_language_model(arguments: argparse.Namespace) -> int:
    from glm_jax.configure import read_configuration
    from glm_jax.language_model.config import LanguageModelRunConfig
    from glm_jax.language_model.evaluate import evaluate_language_model
    from glm_jax.language_model.pictures import draw_losses

    for flag in ("num_batches", "split"):
        if getattr(arguments, flag) is not None:
            raise UsageError(f"--{flag} is not for --task={arguments.task}, which scores a file")
    settings = [f"language_model.name={arguments.task!r}"]
    if arguments.data is not None:
        file = str(resolve_path(arguments.data, "--data"))
        settings.append(f"language_model.data={file!r}")
    config = read_configuration([], [*settings, *arguments.bindings], LanguageModelRunConfig)
    picture = arguments.picture and resolve_path(arguments.picture, "--picture")
    if picture and arguments.task == "lambada":
        raise UsageError("--picture is for documents; LAMBADA has none")
    found = evaluate_language_model(config, arguments.run_folder)
    if picture:
        draw_losses(found.losses, picture)
    shown = ", ".join(f"{name} {value:.6g}" for name, value in found.metrics.items())
    _show(arguments.json, {"task": arguments.task, **found.metrics}, shown)
    return 0


def _writes_texts(task: str) -> bool:
    from glm_jax.seq2seq.registry import SEQ2SEQ_TASKS

    return task in SEQ2SEQ_TASKS


def _run_seq2seq(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from glm_jax.configure import read_configuration
    from glm_jax.finetune.recorded import recorded_task
    from glm_jax.seq2seq.config import Seq2SeqEvaluationConfig, Seq2SeqRunConfig
    from glm_jax.seq2seq.evaluate import evaluate_seq2seq
    from glm_jax.train.metrics import ProgressLine

    for flag in ("num_batches", "picture"):
        if getattr(arguments, flag) is not None:
            raise UsageError(f"--{flag} is not for --task={arguments.task}, which writes texts")
    task, split, checkpoint = arguments.task, arguments.split or "dev", arguments.run_folder
    trained = recorded_task(checkpoint, "seq2seq") == task
    settings = [f"seq2seq.name={task!r}"]
    if arguments.data is not None:
        settings.append(f"seq2seq.data={_data_of(arguments.data)!r}")
    bindings = [*settings, *arguments.bindings]
    if trained:
        config = read_configuration(
            [checkpoint / "config.gin"], bindings, Seq2SeqRunConfig
        ).evaluation
    else:
        config = read_configuration([], bindings, Seq2SeqEvaluationConfig)
    name = arguments.outputs or f"{checkpoint.name}_{task}_{split}.jsonl"
    outputs = resolve_path(name, "--outputs")
    with pretrain.join(arguments):
        import jax

        first = jax.process_index() == 0
        with ProgressLine(Console(stderr=True, quiet=not first)) as line:
            found = evaluate_seq2seq(config, checkpoint, split, outputs, line)
    if first:
        _show_seq2seq(arguments, found, split, outputs)
    return 0


def _show_seq2seq(
    arguments: argparse.Namespace, found: Seq2SeqResult, split: str, outputs: epath.Path
) -> None:
    shown = [f"{n} {e.value:.4g} [{e.low:.4g}, {e.high:.4g}]" for n, e in found.metrics.items()]
    if found.usage.text_slots:
        shown.append(f"{found.usage.wasted_share:.0%} of the time wasted on padding and idle rows")
    shown.append(f"{found.num_outputs:,} outputs in {outputs}")
    described = {
        **{metric: estimate.value for metric, estimate in found.metrics.items()},
        "intervals": {metric: [e.low, e.high] for metric, e in found.metrics.items()},
        "num_outputs": found.num_outputs,
        "outputs": str(outputs),
        "wasted": found.usage.wasted_share,
    }
    described = {"task": arguments.task, "split": split, **described}
    _show(arguments.json, described, f"{split} {', '.join(shown)}")


def _show(json_file: str | None, found: dict, line: str) -> None:
    """Prints the line, or the object where it was asked for; a file gets the object too."""
    text = json.dumps(found)
    if json_file not in (None, "-"):
        write_file(resolve_path(json_file, "--json"), f"{text}\n".encode())
    print(text if json_file == "-" else line)
