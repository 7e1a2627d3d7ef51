"""The two kinds of runs that a sweep varies, and how their results are read."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from glm_jax.errors import UsageError
from glm_jax.finetune.config import FinetuneRunConfig
from glm_jax.io.files import folder_names
from glm_jax.io.paths import resolve_path
from glm_jax.train.config import RunConfig
from glm_jax.typed_values import unknown_name

Bound = Mapping[str, Mapping[str, Any]]
AnyConfig = RunConfig | FinetuneRunConfig


@dataclasses.dataclass(frozen=True)
class RunKind:
    """A kind of run.

    Attributes:
      command: of `glm-jax`.
      root: what describes it.
      folder_setting: its run folder.
      seed_settings: what a seed sets, unless the sweep says otherwise.
      objective: which value of the metric is its result: "final" or "best".
      defaults: of a sweep's runs, where its file says nothing.
    """

    command: str
    root: type
    folder_setting: str
    seed_settings: tuple[str, ...]
    objective: str
    defaults: Mapping[str, Any]

    @property
    def sections(self) -> Mapping[str, type]:
        """The sections of its gin files."""
        return typing.get_type_hints(self.root)

    def split(self, setting: str, where: str) -> tuple[str, str]:
        """Section and name of a setting.

        Args:
          setting: such as "model.num_layers".
          where: what names it, for the message.

        Raises:
          UsageError: there is no such setting.
        """
        section, _, name = setting.partition(".")
        if section not in self.sections or not name:
            sections = list(self.sections)
            raise UsageError(f"{where}: {unknown_name('section', section, sections)}")
        names = [field.name for field in dataclasses.fields(self.sections[section])]
        if name not in names:
            raise UsageError(
                f"{where}: {unknown_name('name', name, names, f' in section {section}')}"
            )
        return section, name

    def default_of(self, setting: str) -> Any:
        """The default of a setting that exists.

        Raises:
          UsageError: it has none.
        """
        section, name = setting.split(".")
        for field in dataclasses.fields(self.sections[section]):
            if field.name == name and field.default is not dataclasses.MISSING:
                return field.default
            if field.name == name and field.default_factory is not dataclasses.MISSING:
                return field.default_factory()
        raise UsageError(f"{setting} is not set, and it has no default")


PRETRAINING = RunKind(
    command="pretrain",
    root=RunConfig,
    folder_setting="train.run_folder",
    seed_settings=("train.seed", "data.seed"),
    objective="final",
    # Filling blanks at the end of a run takes longer than a short run.
    defaults={"evaluation.fill_examples": 0},
)
FINETUNING = RunKind(
    command="finetune",
    root=FinetuneRunConfig,
    folder_setting="finetune.run_folder",
    seed_settings=("finetune.seed",),
    objective="best",
    defaults={},
)


def with_defaults(bound: Bound, kind: RunKind) -> dict[str, dict[str, Any]]:
    """What a sweep's file sets for the run, with the defaults of a sweep's runs."""
    values = {section: dict(names) for section, names in bound.items()}
    for setting, value in kind.defaults.items():
        section, name = setting.split(".")
        values.setdefault(section, {}).setdefault(name, value)
    return values


def kind_of(bound: Bound) -> RunKind:
    """The kind of the run whose sections have these values.

    Raises:
      UsageError: some belong to another kind.
    """
    kind = FINETUNING if bound.get("finetune") or bound.get("task") else PRETRAINING
    for section, values in bound.items():
        if values and section not in kind.sections:
            raise UsageError(
                f"{section}.{next(iter(values))} is set, but glm-jax {kind.command} has the "
                f"sections {', '.join(kind.sections)}"
            )
    return kind


def metric_of(config: AnyConfig) -> str:
    """The metric that a run is judged by, as TensorBoard names it."""
    if isinstance(config, FinetuneRunConfig):
        return f"validation/{config.task.task.metrics[0]}"
    return "validation/loss"


def goal_of(metric: str) -> str:
    """Whether a metric is to be minimized or maximized, by its name."""
    name = metric.rpartition("/")[2]
    smaller = name.startswith("loss") or name in ("perplexity", "gradient_norm", "step_seconds")
    return "minimize" if smaller else "maximize"


def is_complete(config: AnyConfig, folder: str) -> bool:
    """Whether the run in a folder has done all that its configuration asks for."""
    path = resolve_path(folder)
    if isinstance(config, FinetuneRunConfig):
        return (path / "results.json").is_file()
    steps = [int(name) for name in folder_names(path / "checkpoints") if name.isdecimal()]
    return max(steps, default=-1) >= config.train.num_steps
