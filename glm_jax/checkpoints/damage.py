"""Finds damaged checkpoints, and names that set them aside."""

from __future__ import annotations

import jax
from etils import epath

from glm_jax.checkpoints.checksums import find_damage, record_sum
from glm_jax.checkpoints.record import RECORD_ITEM, STATE_ITEM, read_any_record
from glm_jax.errors import RunError

# A damaged checkpoint is kept under this name, where nothing takes it for a checkpoint.
DAMAGED = "{}.damaged"


def describe_damage(step_folder: epath.Path) -> str | None:
    """Describes damage in this process's share of a checkpoint's files, None where there is none.

    Checkpoints written without checksums, by a conversion or by orbax alone, are accepted.
    """
    try:
        record = read_any_record(step_folder)
    except RunError as error:
        return str(error)
    expected = record.pop("record_checksum", None)
    if expected is not None and expected != record_sum(record):
        return f"{RECORD_ITEM}/metadata has changed since it was written"
    if not record.get("checksums"):
        return None
    damage = find_damage(step_folder / STATE_ITEM, jax.process_index(), jax.process_count())
    return damage and f"{STATE_ITEM}/{damage}"


def free_name(step_folder: epath.Path) -> epath.Path:
    aside = step_folder.with_name(DAMAGED.format(step_folder.name))
    number = 2
    while aside.exists():
        aside = step_folder.with_name(f"{DAMAGED.format(step_folder.name)}-{number}")
        number += 1
    return aside
