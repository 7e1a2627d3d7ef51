"""A checkpoint on one task of any kind."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etils import epath

from glm_jax.errors import UsageError
from glm_jax.io.paths import resolve_path
from glm_jax.io.tfds import TFDS_PREFIX
from glm_jax.language_model.tasks import LANGUAGE_MODEL_TASKS

if TYPE_CHECKING:
    from glm_jax.seq2seq.evaluate import Seq2SeqResult

CHOICES, TEXTS, LANGUAGE_MODEL = "choices", "texts", "language model"


@dataclass(frozen=True)
class TaskEvaluation:
    """What is asked for.

    Attributes:
      checkpoint: of any kind.
      task: its name.
      data: a path, or a data set of TFDS; "" for what the configuration says.
      split: of the task; "" for dev.
      bindings: settings, as in gin files.
      outputs: file of the texts that are written; "" for one that is named after the rest.
      picture: file of the losses of documents; "" for none.
    """

    checkpoint: epath.Path
    task: str
    data: str = ""
    split: str = ""
    bindings: Sequence[str] = ()
    outputs: str = ""
    picture: str = ""

    @property
    def split_or_dev(self) -> str:
        """The split."""
        return self.split or "dev"

    def data_binding(self, section: str) -> list[str]:
        """What sets the data."""
        if not self.data:
            return []
        is_stored = self.data.startswith(TFDS_PREFIX)
        data = self.data if is_stored else str(resolve_path(self.data, "--data"))
        return [f"{section}.data={data!r}"]


@dataclass(frozen=True)
class TaskResult:
    """What an evaluation found.

    Attributes:
      found: as JSON values.
      line: for people.
      metrics: by name, the first one is the published one.
      intervals: 95% intervals of metrics, where they are known.
    """

    found: Mapping[str, Any]
    line: str
    metrics: Mapping[str, float]
    intervals: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)


def kind_of(task: str) -> str:
    """The kind of a task.

    Raises:
      UsageError: there is no such task.
    """
    from glm_jax.seq2seq.registry import SEQ2SEQ_TASKS
    from glm_jax.tasks.registry import TASKS, names_file, unknown_task

    if task in LANGUAGE_MODEL_TASKS:
        return LANGUAGE_MODEL
    if task in SEQ2SEQ_TASKS:
        return TEXTS
    if task in TASKS or task == "custom" or names_file(task):
        return CHOICES
    raise unknown_task(task, [*TASKS, *SEQ2SEQ_TASKS, *LANGUAGE_MODEL_TASKS, "custom", "all"])


def evaluate_by_kind(
    asked: TaskEvaluation, join: Callable[[], AbstractContextManager[Any]] = nullcontext
) -> TaskResult | None:
    """Evaluates a checkpoint on a task of any kind.

    Args:
      asked: what is evaluated.
      join: a context in which all processes of the evaluation are connected.

    Returns:
      None on processes that report nothing.

    Raises:
      UsageError: something is missing, or does not fit the rest.
    """
    kind = kind_of(asked.task)
    if not asked.checkpoint.exists():
        raise UsageError(f"there is no checkpoint at {asked.checkpoint}")
    if kind == TEXTS:
        return _evaluate_texts(asked, join)
    return _score_documents(asked) if kind == LANGUAGE_MODEL else _evaluate_choices(asked)


def _evaluate_choices(asked: TaskEvaluation) -> TaskResult:
    from glm_jax.configure import read_configuration
    from glm_jax.finetune.config import FinetuneRunConfig
    from glm_jax.finetune.evaluate import evaluate_task, untrained_settings
    from glm_jax.finetune.recorded import recorded_task

    checkpoint, task, split = asked.checkpoint, asked.task, asked.split_or_dev
    trained = recorded_task(checkpoint, "task") == task
    gin_files = [checkpoint / "config.gin"] if trained else []
    settings = [] if trained else untrained_settings(checkpoint, task)
    bindings = [*settings, *asked.bindings, *asked.data_binding("task")]
    config = read_configuration(gin_files, bindings, FinetuneRunConfig)
    found = evaluate_task(config, checkpoint, split)
    shown = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
    return TaskResult({"task": task, "split": split, **found}, f"{split} {shown}", found)


def _score_documents(asked: TaskEvaluation) -> TaskResult:
    from glm_jax.configure import read_configuration
    from glm_jax.language_model.config import LanguageModelRunConfig
    from glm_jax.language_model.evaluate import evaluate_language_model
    from glm_jax.language_model.pictures import draw_losses

    settings = [f"language_model.name={asked.task!r}", *asked.data_binding("language_model")]
    config = read_configuration([], [*settings, *asked.bindings], LanguageModelRunConfig)
    picture = resolve_path(asked.picture, "--picture") if asked.picture else None
    if picture and asked.task == "lambada":
        raise UsageError("--picture is for documents; LAMBADA has none")
    found = evaluate_language_model(config, asked.checkpoint)
    if picture:
        draw_losses(found.losses, picture)
    shown = ", ".join(f"{name} {value:.6g}" for name, value in found.metrics.items())
    return TaskResult({"task": asked.task, **found.metrics}, shown, found.metrics)


def _evaluate_texts(
    asked: TaskEvaluation, join: Callable[[], AbstractContextManager[Any]]
) -> TaskResult | None:
    from rich.console import Console

    from glm_jax.configure import read_configuration
    from glm_jax.finetune.recorded import recorded_task
    from glm_jax.seq2seq.config import Seq2SeqEvaluationConfig, Seq2SeqRunConfig
    from glm_jax.seq2seq.evaluate import evaluate_seq2seq
    from glm_jax.train.metrics import ProgressLine

    checkpoint, task, split = asked.checkpoint, asked.task, asked.split_or_dev
    bindings = [f"seq2seq.name={task!r}", *asked.data_binding("seq2seq"), *asked.bindings]
    if recorded_task(checkpoint, "seq2seq") == task:
        gin_files = [checkpoint / "config.gin"]
        config = read_configuration(gin_files, bindings, Seq2SeqRunConfig).evaluation
    else:
        config = read_configuration([], bindings, Seq2SeqEvaluationConfig)
    name = asked.outputs or f"{checkpoint.name}_{task}_{split}.jsonl"
    outputs = resolve_path(name, "--outputs")
    with join():
        import jax

        first = jax.process_index() == 0
        with ProgressLine(Console(stderr=True, quiet=not first)) as line:
            found = evaluate_seq2seq(config, checkpoint, split, outputs, line)
    return _result_of_texts(asked, found, outputs) if first else None


def _result_of_texts(
    asked: TaskEvaluation, found: Seq2SeqResult, outputs: epath.Path
) -> TaskResult:
    split = asked.split_or_dev
    shown = [f"{n} {e.value:.4g} [{e.low:.4g}, {e.high:.4g}]" for n, e in found.metrics.items()]
    if found.usage.text_slots:
        shown.append(f"{found.usage.wasted_share:.0%} of the time wasted on padding and idle rows")
    shown.append(f"{found.num_outputs:,} outputs in {outputs}")
    metrics = {metric: estimate.value for metric, estimate in found.metrics.items()}
    intervals = {metric: [e.low, e.high] for metric, e in found.metrics.items()}
    described = {
        **{"task": asked.task, "split": split, **metrics, "intervals": intervals},
        "num_outputs": found.num_outputs,
        "outputs": str(outputs),
        "wasted": found.usage.wasted_share,
    }
    return TaskResult(described, f"{split} {', '.join(shown)}", metrics, intervals)
