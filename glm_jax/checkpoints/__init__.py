"""Saving and restoring a run: orbax checkpoints with checksums and a record.

The public names are loaded when they are first used.
"""

from typing import TYPE_CHECKING

from glm_jax.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from glm_jax.checkpoints.async_save import FinishedSave, RetentionPolicy
    from glm_jax.checkpoints.checkpoints import Checkpoints
    from glm_jax.checkpoints.config import CheckpointConfig
    from glm_jax.checkpoints.record import find_step, read_record

__all__ = [
    "CheckpointConfig",
    "Checkpoints",
    "FinishedSave",
    "RetentionPolicy",
    "find_step",
    "read_record",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "CheckpointConfig": "config",
        "Checkpoints": "checkpoints",
        "FinishedSave": "async_save",
        "RetentionPolicy": "async_save",
        "find_step": "record",
        "read_record": "record",
    },
)
