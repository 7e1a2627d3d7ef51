"""Where the state of a sweep is kept: Optuna's journal file, or any storage it knows."""

from __future__ import annotations

import logging
import time
import warnings
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalRedisBackend
from optuna.study import StudyDirection

from glm_jax.errors import RunError, UsageError
from glm_jax.io.paths import is_url, resolve_path

JOURNAL_FILE = "study.journal"
SQLITE_TIMEOUT_SECONDS = 60
OPEN_ATTEMPTS = 5


def open_storage(url: str, folder: str) -> BaseStorage:
    """The storage that `sweep.storage` names.

    Args:
      url: a path of a journal file, redis://..., or a database's URL as SQLAlchemy takes it; "" for
        a journal file in the sweep's folder.
      folder: of the sweep; made where it is missing.

    Raises:
      UsageError: it can't be opened.
    """
    _quiet_optuna()
    if not url and is_url(folder):
        raise UsageError(
            f"sweep.folder is {folder}, where no journal file can be; set sweep.storage to a "
            "database, or to a path"
        )
    if not is_url(url):
        file = Path(resolve_path(url, "sweep.storage") if url else resolve_path(folder))
        file = file if url else file / JOURNAL_FILE
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            return JournalStorage(JournalFileBackend(str(file)))
        except (OSError, ValueError) as error:
            raise UsageError(f"the sweep's journal {file} can't be opened: {error}") from error
    if url.startswith("redis"):
        return JournalStorage(JournalRedisBackend(url))
    return _open_database(url)


def _open_database(url: str) -> BaseStorage:
    """A database; several drivers may make its tables at the same time, and one of them fails.

    Raises:
      UsageError: it can't be opened.
    """
    timeout = {"connect_args": {"timeout": SQLITE_TIMEOUT_SECONDS}}
    options = timeout if url.startswith("sqlite") else {}
    for attempt in range(OPEN_ATTEMPTS):
        try:
            return RDBStorage(url, engine_kwargs=options)
        except Exception as error:  # each database fails in its own way
            if attempt == OPEN_ATTEMPTS - 1 or isinstance(error, ImportError):
                reason = " ".join(str(error).split())
                raise UsageError(f"sweep.storage {url} can't be opened: {reason}") from error
            time.sleep(0.2 * (attempt + 1))
    raise AssertionError("unreachable")


def open_study(storage: BaseStorage, name: str, goal: str) -> int:
    """The number of a study in a storage; made where it is missing.

    Raises:
      UsageError: it has another goal.
      RunError: the storage failed.
    """
    try:
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            direction=StudyDirection[goal.upper()],
            load_if_exists=True,
        )
    except Exception as error:
        reason = " ".join(str(error).split())
        raise RunError(f"the study {name} can't be opened: {reason}") from error
    if study.direction.name.lower() != goal:
        raise UsageError(f"the study {name} is to {study.direction.name.lower()}, not to {goal}")
    return storage.get_study_id_from_name(name)


def _quiet_optuna() -> None:
    """Optuna reports every trial, which the driver does itself."""
    optuna.logging.set_verbosity(logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
