"""The files that make a run folder self-contained: configuration as gin and JSON, tokenizer.

A run folder may be copied, moved and linked: its configuration means the folder that holds it,
whatever path is written there.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from etils import epath

from glm_jax.errors import UsageError
from glm_jax.io.files import write_files
from glm_jax.io.hub import is_hub_name
from glm_jax.io.paths import is_url, resolve_path
from glm_jax.tokenizer import Tokenizer

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

CONFIGURATION_FILE = "config.gin"
JSON_FILE = "config.json"
# Settings that may name something inside a run folder.
RUN_FOLDER_SETTINGS = ("train.run_folder", "finetune.run_folder")
PATH_SETTINGS = (
    "finetune.initial_weights",
    "task.data",
    "seq2seq.data",
    "data.store",
    "data.stores",
    "data.supervised",
    "data.tasks",
    "train.initial_weights",
)


def folder_of_run(gin_file: epath.Path) -> epath.Path | None:
    """The run folder that a gin file is the configuration of; None for any other gin file.

    Links count where they are first, so that a linked folder keeps its name, and else where they
    lead.
    """
    # The method `resolve` of these paths doesn't follow links.
    followed = gin_file if is_url(gin_file) else epath.Path(os.path.realpath(gin_file))
    for path in (gin_file, followed):
        if path.name == CONFIGURATION_FILE and _is_run_folder(path.parent):
            return path.parent
    return None


def _is_run_folder(folder: epath.Path) -> bool:
    """Whether a run wrote its configuration here, or `glm-jax convert` its checkpoint."""
    checkpoints = folder / "checkpoints"
    return (folder / JSON_FILE).is_file() or (
        checkpoints.is_dir() and any(path.name.isdecimal() for path in checkpoints.iterdir())
    )


def moved_settings(folder: epath.Path, recorded: Mapping[str, object]) -> dict[str, object]:
    """What a run's own configuration means, where it was read from another folder than it names.

    Args:
      folder: that its file lies in.
      recorded: what the file says about `RUN_FOLDER_SETTINGS` and `PATH_SETTINGS`.

    Returns:
      The settings that change: the run folder, and paths inside of the one that was recorded.
    """
    setting = next((name for name in RUN_FOLDER_SETTINGS if recorded.get(name)), "")
    old = recorded.get(setting)
    if not isinstance(old, str) or _same_folder(old, folder):
        return {}
    moved: dict[str, object] = {setting: os.fspath(folder)}
    for name in PATH_SETTINGS:
        value = recorded.get(name)
        if isinstance(value, str):
            changed = _moved(value, old, folder)
        elif isinstance(value, Mapping) and name == "data.tasks":
            changed = {task: _moved(path, old, folder) for task, path in value.items()}
        elif isinstance(value, Mapping):
            changed = {_moved(key, old, folder): item for key, item in value.items()}
        else:
            continue
        if changed != value:
            moved[name] = changed
    return moved


def _same_folder(one: str, other: epath.Path) -> bool:
    try:
        return resolve_path(one) == resolve_path(other)
    except UsageError:
        return False


def _moved(path: str, old: str, new: epath.Path) -> str:
    """`path`, with the folder `new` in place of `old` where it lies inside of that."""
    if is_hub_name(path):
        return path
    try:
        inside = resolve_path(path).relative_to(resolve_path(old))
    except (UsageError, ValueError):
        return path  # empty, or elsewhere
    return os.fspath(new / inside)


def gin_text(config: DataclassInstance) -> str:
    """The full configuration as a gin file that reads back to the same configuration."""
    return (
        "\n".join(
            f"{section}.{name} = {value!r}"
            for section, values in dataclasses.asdict(config).items()
            for name, value in values.items()
        )
        + "\n"
    )


def json_text(config: DataclassInstance) -> str:
    """The full configuration as JSON, one object per section."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def write_configuration(
    folder: str | os.PathLike[str], config: DataclassInstance, tokenizer: Tokenizer
) -> None:
    """Makes the run folder self-contained: configuration as gin and JSON, and the tokenizer.

    Each file is replaced atomically: a full disk leaves the old one.
    """
    folder = resolve_path(folder, "train.run_folder")
    folder.mkdir(parents=True, exist_ok=True)
    # The gin file last: it is read as this run's own where the other is beside it.
    contents = {JSON_FILE: json_text(config), CONFIGURATION_FILE: gin_text(config)}
    write_files(folder, {name: text.encode() for name, text in contents.items()})
    tokenizer.save(folder / "tokenizer")
