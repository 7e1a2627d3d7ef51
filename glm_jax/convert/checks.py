"""What is checked of a conversion before and while it runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from glm_jax.convert.dimensions import WORD_EMBEDDING
from glm_jax.convert.report import readable_bytes
from glm_jax.errors import RunError, UsageError

# Rows of the Chinese tokenizer's vocabulary padded to a multiple of 128, and the ids of eop and
# [gMASK] with the original's --fix-command-token.
_CHINESE_ROWS, _CHINESE_EOP, _CHINESE_GMASK = 50048, 50007, 50009


class FaultWatch:
    """Checks weights for a known fault of published ones while they are copied.

    Attributes:
      sentence: what was found, None as long as nothing was.
    """

    def __init__(self) -> None:
        self.sentence: str | None = None

    def inspect(self, name: str, tensor: np.ndarray) -> None:
        """Notes the fault if this is a tensor that shows it."""
        if name == WORD_EMBEDDING:
            self.sentence = chinese_mask_fault(tensor)


def refuse_existing(out: Path) -> None:
    """Makes sure that nothing would be overwritten.

    Raises:
      UsageError: `out` is a file, or a folder that isn't empty.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out} exists already; expected a new or an empty folder")


def check_space(out: Path, num_bytes: int) -> None:
    """Makes sure that the disk has room, before hours of writing.

    Raises:
      RunError: it has not.
    """
    existing = next(folder for folder in out.parents if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if free < num_bytes:
        needed, left = readable_bytes(num_bytes), readable_bytes(free)
        if needed == left:
            needed, left = f"{num_bytes:,} bytes", f"{free:,} bytes"
        raise RunError(f"{out} needs {needed}, but only {left} are free there")


def chinese_mask_fault(word_embedding: np.ndarray) -> str | None:
    """A sentence on the fault of glm-10b-chinese where this word embedding [V, D] has it.

    That model was trained with eop and [gMASK] sharing id 50007, and its row was later copied to
    50009, the id that [gMASK] has with --fix-command-token.
    """
    if len(word_embedding) != _CHINESE_ROWS:
        return None
    eop, gmask = word_embedding[_CHINESE_EOP], word_embedding[_CHINESE_GMASK]
    if eop.tobytes() != gmask.tobytes() or (eop == eop[0]).all():
        return None
    return (
        f"rows {_CHINESE_EOP} (eop) and {_CHINESE_GMASK} ([gMASK]) of the word embedding are the "
        "same, as in glm-10b-chinese: the model was trained with one id for both tokens, and reads "
        f"[gMASK] as {_CHINESE_EOP} and {_CHINESE_GMASK} alike"
    )
