"""Saving and restoring a run: orbax checkpoints with checksums and a record.

The public names are loaded when they are first used.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glm_jax.checkpoints.async_save import FinishedSave, RetentionPolicy
    from glm_jax.checkpoints.checkpoints import CheckpointConfig, Checkpoints
    from glm_jax.checkpoints.record import find_step, read_record

__all__ = [
    "CheckpointConfig",
    "Checkpoints",
    "FinishedSave",
    "RetentionPolicy",
    "find_step",
    "read_record",
]

_PUBLIC = {
    "CheckpointConfig": "glm_jax.checkpoints.checkpoints",
    "Checkpoints": "glm_jax.checkpoints.checkpoints",
    "FinishedSave": "glm_jax.checkpoints.async_save",
    "RetentionPolicy": "glm_jax.checkpoints.async_save",
    "find_step": "glm_jax.checkpoints.record",
    "read_record": "glm_jax.checkpoints.record",
}


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
