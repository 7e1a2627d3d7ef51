"""The runs behind the published rows of GLM: from gin files and reports of compiled steps."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glm_jax.compile.hardware import HardwareConfig, hardware_configs
from glm_jax.compile.page import report_path
from glm_jax.compile.report import StepReport, read_report
from glm_jax.configure import read_any_configuration, read_finetuning
from glm_jax.finetune.config import FinetuneRunConfig, TokenizerConfig
from glm_jax.finetune.placeholder import placeholder_batch
from glm_jax.seq2seq.config import Seq2SeqRunConfig
from glm_jax.seq2seq.placeholder import placeholder_pairs
from glm_jax.train.config import RunConfig

RECIPES = Path("configs/finetune")
HARDWARE = Path("configs/hardware/finetune")
REPORTS = Path("docs/tpu")
NOT_COMPILED = "no report"
# The examples that a time is given for.
EXAMPLES = 1000


@dataclass(frozen=True)
class CompiledStep:
    """A finetuning step and the slice that it fits.

    Attributes:
      hardware: the slice, and the file that configures it.
      config: what that sets.
      report: of the compiled step.
    """

    hardware: HardwareConfig
    config: FinetuneRunConfig | Seq2SeqRunConfig
    report: StepReport

    @property
    def flags(self) -> Sequence[str]:
        """What a run on this slice sets beyond its recipe."""
        axes = dataclasses.asdict(self.config.mesh).items()
        sizes = [f"--gin.mesh.{axis}={size}" for axis, size in axes if size != 1]
        return [*sizes, f"--gin.finetune.remat={self.config.finetune.remat}"]


@dataclass(frozen=True)
class FinetuningRun:
    """A recipe, and the smallest slice that its step is known to fit.

    Attributes:
      path: of the recipe, from the folder of the repository.
      config: what it sets.
      compiled: the step's report; None where none was compiled.
    """

    path: Path
    config: FinetuneRunConfig | Seq2SeqRunConfig
    compiled: CompiledStep | None

    @property
    def task(self) -> str:
        """Its name."""
        is_seq2seq = isinstance(self.config, Seq2SeqRunConfig)
        return self.config.seq2seq.name if is_seq2seq else self.config.task.name

    @property
    def command(self) -> str:
        """Trains on the smallest slice, or on any where none is known."""
        flags = self.compiled.flags if self.compiled else ()
        return " ".join([f"glm-jax finetune --gin_file={self.path}", *flags])

    @property
    def recipe(self) -> str:
        """Epochs, batch and learning rate, and the lengths of rows."""
        settings, config = self.config.finetune, self.config
        if isinstance(config, Seq2SeqRunConfig):
            length = f"{config.seq2seq.source_length} + {config.seq2seq.target_length} tokens"
        else:
            length = f"{config.task.sequence_length} tokens"
        rate = f"{config.optimizer.learning_rate:g}"
        return f"{settings.epochs} x {settings.batch_size}, {rate}, {length}"

    @property
    def slice(self) -> str:
        """Of TPUs."""
        if self.compiled is None:
            return NOT_COMPILED
        hardware = self.compiled.hardware
        return f"{hardware.topology} ({hardware.chips} chips)"

    @property
    def time(self) -> str:
        """Of a step and of `EXAMPLES` examples, with everything and with nothing overlapped."""
        if self.compiled is None:
            return NOT_COMPILED
        prediction = self.compiled.report.prediction
        bounds = prediction.overlapped_seconds, prediction.serial_used_seconds
        steps = EXAMPLES / self.config.finetune.batch_size
        step = " to ".join(f"{seconds:.2f}" for seconds in bounds)
        many = " to ".join(f"{seconds * steps:.0f}" for seconds in bounds)
        return f"{step} s a step, {many} s for {EXAMPLES:,} examples"


def finetuning_run(root: Path, task: str, model: str) -> FinetuningRun:
    """The run of a task's recipe for a model.

    Args:
      root: folder of the repository.
      task: its name.
      model: as in the recipes' names, such as "10b".

    Raises:
      UsageError: the recipe is missing or faulty.
    """
    path = RECIPES / f"{task}_{model}.gin"
    config = read_finetuning([root / path])
    fitting = [step for step in compiled_steps(root) if is_step_of(step, config)]
    smallest = min(fitting, key=lambda step: step.hardware.chips, default=None)
    return FinetuningRun(path, config, smallest)


@functools.cache
def compiled_steps(root: Path) -> Sequence[CompiledStep]:
    """The steps of finetuning runs that fit their slice, with reports of the same batch and mesh
    as their configurations have now."""
    found = []
    for hardware in hardware_configs(root / HARDWARE):
        file = report_path(hardware, root / REPORTS)
        if not file.is_file() or "does_not_fit" in json.loads(file.read_text()):
            continue
        report, config = read_report(file), read_any_configuration([hardware.path])
        assert not isinstance(config, RunConfig)
        mesh, settings = config.mesh.shape(hardware.chips), config.finetune
        expected = (mesh, settings.remat, settings.batch_size)
        if (tuple(report.mesh.values()), report.remat, report.batch_size) == expected:
            found.append(CompiledStep(hardware, config, report))
    return found


def is_step_of(step: CompiledStep, config: FinetuneRunConfig | Seq2SeqRunConfig) -> bool:
    """Whether a recipe's step is the compiled one, on that mesh and with that remat.

    Steps of tasks are the same if their networks, batches, optimizers and trained weights are.
    """
    return _described(step.config) == _described(config)


def _described(config: FinetuneRunConfig | Seq2SeqRunConfig) -> tuple[object, ...]:
    """What decides on the step of a recipe, without mesh and remat."""
    settings = config.finetune
    common = (
        *(settings.initial_weights, settings.compute_dtype, settings.accumulation_steps),
        *(settings.freeze_transformer, settings.tune_prefix_layers),
        *(config.lora, config.optimizer, config.layout),
    )
    if isinstance(config, Seq2SeqRunConfig):
        smoothing = config.seq2seq.label_smoothing > 0
        return (*common, _shapes(placeholder_pairs(config)), smoothing, config.prefix)
    return (*common, _shapes(placeholder_batch(config)), config.task.cloze, config.prompt)


def _shapes(batch: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in batch.items()}


def language_model_command(task: str, length: int, tokenizer: TokenizerConfig, *more: str) -> str:
    """Scores a file with the released weights of GLM-10B.

    Args:
      task: "lambada" or "wikitext".
      length: of a row, in tokens.
      tokenizer: of the model, which the released weights do not have with them.
      more: further settings.
    """
    settings = [
        f"language_model.sequence_length={length}",
        *more,
        f"tokenizer.kind={tokenizer.kind!r}",
        f"tokenizer.files={tokenizer.files!r}",
        f"tokenizer.task_mask={tokenizer.task_mask}",
    ]
    flags = (f'"--gin.{setting}"' for setting in settings)
    return " \\\n    ".join(
        [f"glm-jax evaluate checkpoints/glm_10b --task={task} --data=FILE", *flags]
    )
