"""A checkpoint on all tasks whose files are there: one table, continued where it is there."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from glm_jax.cli.evaluate_task import (
    LANGUAGE_MODEL,
    TEXTS,
    TaskEvaluation,
    TaskResult,
    evaluate_by_kind,
    kind_of,
)
from glm_jax.cli.found_tasks import FoundTasks, find_tasks
from glm_jax.errors import RunError, UsageError
from glm_jax.io.files import write_file
from glm_jax.io.hub import checkpoint_name
from glm_jax.io.paths import resolve_path

RESULTS_FILE, TABLE_FILE = "results.json", "results.md"
_HEADER = ("task", "split", "metric", "value", "95% interval", "others")


def run_all(arguments: argparse.Namespace) -> int:
    """Evaluates what has not been evaluated, and prints the table.

    Raises:
      UsageError: a flag is missing or is not for all tasks, or there are other results.
      RunError: a task failed; the others have been evaluated.
    """
    from glm_jax.finetune.recorded import best_checkpoint
    from glm_jax.tasks.files import JSON_LINES

    for flag in ("num_batches", "picture"):
        if getattr(arguments, flag) is not None:
            raise UsageError(f"--{flag} is not for --task=all")
    if arguments.data is None:
        raise UsageError("--task=all needs --data: a folder with a sub-folder for each task")
    if arguments.split not in (None, *JSON_LINES):
        raise UsageError(f"--split is {arguments.split!r}; expected one of {', '.join(JSON_LINES)}")
    checkpoint = arguments.run_folder
    weights = best_checkpoint(checkpoint)
    check_sections(arguments.bindings)
    found = find_tasks(resolve_path(arguments.data, "--data"), arguments.split or "dev")
    folder = resolve_path(arguments.outputs or f"{checkpoint_name(checkpoint)}_all", "--outputs")
    settings = {
        "checkpoint": _identity(weights),
        "split": arguments.split or "dev",
        "settings": list(arguments.bindings),
    }
    results = AllResults(folder, settings, found)
    for task, data in found.data.items():
        if results.has(task, data):
            print(f"{task}: is done", file=sys.stderr)
            continue
        asked = TaskEvaluation(
            checkpoint,
            task,
            data,
            arguments.split or "",
            bindings_for(task, arguments.bindings),
            outputs=os.fspath(folder / f"{task}_{arguments.split or 'dev'}.jsonl"),
        )
        _evaluate_one(asked, results)
    results.write_table()
    _show(arguments.json, results)
    if results.failed:
        raise RunError(
            f"{len(results.failed)} of {len(found.data)} tasks failed: {', '.join(results.failed)}"
        )
    return 0


def _evaluate_one(asked: TaskEvaluation, results: AllResults) -> None:
    """Evaluates a task; what it fails with is kept, and printed."""
    try:
        result = evaluate_by_kind(asked)
    except (UsageError, RunError) as error:
        results.fail(asked.task, str(error))
    except Exception as error:  # the other tasks are to be evaluated
        results.fail(asked.task, f"{type(error).__name__}: {' '.join(str(error).split())}")
    else:
        assert result is not None  # there is one process
        results.add(asked.task, asked.data, result)
        print(f"{asked.task}: {result.line}", file=sys.stderr)
        return
    print(f"glm-jax: {asked.task}: {results.failed[asked.task]}", file=sys.stderr)


class AllResults:
    """What has been found so far, in a folder."""

    def __init__(self, folder: epath.Path, settings: Mapping[str, Any], found: FoundTasks) -> None:
        """Takes the folder, and reads what it has.

        Raises:
          UsageError: it has results of other settings.
        """
        self.folder, self._settings, self._missing = folder, settings, found.missing
        self.done: dict[str, dict[str, Any]] = {}
        self.failed: dict[str, str] = {}
        file = folder / RESULTS_FILE
        if file.is_file():
            self.done = {
                task: result
                for task, result in _read_results(file, settings).items()
                if task in found.data
            }

    def has(self, task: str, data: str) -> bool:
        """Whether a task has been evaluated on these data."""
        return task in self.done and self.done[task]["data"] == data

    def add(self, task: str, data: str, result: TaskResult) -> None:
        """Keeps what was found."""
        intervals = {name: list(ends) for name, ends in result.intervals.items()}
        self.done[task] = {
            "data": data,
            "split": result.found.get("split", ""),
            "metrics": dict(result.metrics),
            "intervals": intervals,
        }
        self._write()

    def fail(self, task: str, sentence: str) -> None:
        """Keeps why a task failed."""
        self.done.pop(task, None)
        self.failed[task] = sentence
        self._write()

    def described(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {
            **self._settings,
            "tasks": self.done,
            "failed": self.failed,
            "missing": dict(self._missing),
        }

    def rows(self) -> list[Sequence[str]]:
        """The table."""
        rows = []
        for task, result in self.done.items():
            (name, value), *others = list(result["metrics"].items()) or [("no metrics", None)]
            interval = result["intervals"].get(name, ())
            rows.append(
                (
                    *(task, result["split"], name, "" if value is None else f"{value:.4g}"),
                    "–".join(f"{end:.4g}" for end in interval),
                    ", ".join(f"{other} {number:.4g}" for other, number in others),
                )
            )
        return rows

    def missing_line(self) -> str:
        """The tasks without files, and where these are published."""
        by_place: dict[str, list[str]] = {}
        for task, published_at in self._missing.items():
            by_place.setdefault(published_at or "your own files", []).append(task)
        listed = (f"{', '.join(tasks)} ({place})" for place, tasks in by_place.items())
        return f"without files: {'; '.join(listed)}" if by_place else ""

    def write_table(self) -> None:
        """Writes the table as Markdown."""
        aligned = ("---",) * 3 + ("--:",) + ("---",) * 2
        lines = [f"# {self._settings['checkpoint']}", ""]
        lines += [f"| {' | '.join(row)} |" for row in (_HEADER, aligned, *self.rows())]
        lines += [""] + [f"{task} failed: {why}\n" for task, why in self.failed.items()]
        write_file(self.folder / TABLE_FILE, "\n".join([*lines, self.missing_line(), ""]).encode())

    def _write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.described(), indent=2, ensure_ascii=False) + "\n"
        write_file(self.folder / RESULTS_FILE, text.encode())


def check_sections(bindings: Sequence[str]) -> None:
    """Makes sure that every setting is one of some kind of task.

    Raises:
      UsageError: one is not.
    """
    known = {section for kind in _roots() for section in _sections(kind)}
    for binding in bindings:
        section = binding.partition(".")[0].strip()
        if section not in known:
            raise UsageError(
                f"no task has the section of {binding!r}; expected one of "
                f"{', '.join(sorted(known))}"
            )


def bindings_for(task: str, bindings: Sequence[str]) -> list[str]:
    """The settings of sections that the task's kind has."""
    known = _sections(kind_of(task))
    return [binding for binding in bindings if binding.partition(".")[0].strip() in known]


def _roots() -> Mapping[str, type]:
    from glm_jax.cli.evaluate_task import CHOICES
    from glm_jax.finetune.config import FinetuneRunConfig
    from glm_jax.language_model.config import LanguageModelRunConfig
    from glm_jax.seq2seq.config import Seq2SeqEvaluationConfig

    return {
        CHOICES: FinetuneRunConfig,
        TEXTS: Seq2SeqEvaluationConfig,
        LANGUAGE_MODEL: LanguageModelRunConfig,
    }


def _sections(kind: str) -> set[str]:
    return {field.name for field in dataclasses.fields(_roots()[kind])}


def _identity(weights: epath.Path) -> str:
    """What names the weights: of a run folder, its newest checkpoint."""
    from glm_jax.convert.base_weights import base_path

    return os.fspath(base_path(weights))


def _read_results(file: epath.Path, settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    try:
        found = json.loads(file.read_text())
        others = {name: found[name] for name in settings}
        tasks = found["tasks"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file} has no results of all tasks; give another --outputs") from error
    for name, value in settings.items():
        if others[name] != value:
            raise UsageError(
                f"{file} has results for {name} = {others[name]!r}, not {value!r}; give another "
                "--outputs"
            )
    return tasks


def _show(json_file: str | None, results: AllResults) -> None:
    from rich.console import Console
    from rich.table import Table

    from glm_jax.cli.show import write_json

    if json_file is not None:
        write_json(json_file, results.described())
    if json_file == "-":
        return
    table = Table(box=None, pad_edge=False)
    for name in _HEADER:
        table.add_column(name, justify="right" if name == "value" else "left", overflow="fold")
    for row in results.rows():
        table.add_row(*row)
    console = Console(highlight=False, soft_wrap=False)
    console.print(table, markup=False)
    for task, why in results.failed.items():
        console.print(f"{task} failed: {why}", markup=False, soft_wrap=True)
    if line := results.missing_line():
        console.print(line, markup=False, soft_wrap=True)
    console.print(f"results in {results.folder}", markup=False, soft_wrap=True)
