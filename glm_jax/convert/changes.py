"""What a conversion may change in the weights: dtype, position tables, rows of the vocabulary."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from glm_jax.convert.dimensions import POSITION_TABLES, WORD_EMBEDDING
from glm_jax.convert.positions import (
    DEFAULT_NEW_POSITIONS,
    INITIAL_STANDARD_DEVIATION,
    NEW_POSITIONS,
    extend_positions,
)
from glm_jax.convert.tensors import require_finite
from glm_jax.convert.weights import TensorInfo, WeightSource
from glm_jax.errors import UsageError
from glm_jax.validation import at_least, choice


@dataclasses.dataclass(frozen=True)
class Changes:
    """The changes asked for; None leaves things as they are.

    Attributes:
      dtype: of every tensor but integers.
      max_sequence_length: the position tables are extended to it.
      new_positions: what the added rows of the position tables are, "random" or "repeat", as in
        `extend_positions`.
      seed: of random rows.
      pad_vocab_to_multiple_of: rows of zeros are added to the word embedding up to a multiple. The
        original pads to a multiple of 128 x ranks.
      quantization: "int8" or "int4" quantizes the matrices of the layers; "none" expands them.
    """

    dtype: np.dtype | None = None
    max_sequence_length: int | None = None
    new_positions: str = DEFAULT_NEW_POSITIONS
    seed: int = 0
    pad_vocab_to_multiple_of: int | None = None
    quantization: str | None = None

    def __post_init__(self) -> None:
        choice("changes", self, "new_positions", NEW_POSITIONS)
        at_least("changes", self, 0, "seed")


class ChangedSource:
    """A source whose tensors come changed and checked."""

    def __init__(self, source: WeightSource, changes: Changes) -> None:
        """Works out the new shapes.

        Raises:
          UsageError: the source can't be changed so.
        """
        self.path, self.kind = source.path, source.kind
        self.metadata, self.extra = source.metadata, source.extra
        self._source, self._changes = source, changes
        self._rows = _new_rows(source, changes)
        self.tensors: Mapping[str, TensorInfo] = {
            name: TensorInfo(
                (self._rows.get(name, info.shape[0]), *info.shape[1:]),
                _new_dtype(info.dtype, changes),
            )
            for name, info in source.tensors.items()
        }

    def __enter__(self) -> ChangedSource:
        return self

    def __exit__(self, *_error: object) -> None: ...

    @property
    def new_positions(self) -> str | None:
        """What the added rows of the position tables are; None where none are added."""
        if not any(name in self._rows for name in POSITION_TABLES):
            return None
        if self._changes.new_positions == "repeat":
            return "the new rows repeat the table"
        deviation, seed = INITIAL_STANDARD_DEVIATION, self._changes.seed
        return f"new rows random (normal, {deviation}), seed {seed}"

    def where(self, name: str) -> str:
        """The file or files that hold a tensor."""
        return self._source.where(name)

    def read(self, name: str) -> np.ndarray:
        """One tensor, changed.

        Raises:
          UsageError: it is damaged, holds NaN or infinity, or a number that the new dtype can't.
        """
        tensor = self._source.read(name)
        rows, dtype = self.tensors[name].shape[0], self.tensors[name].dtype
        if rows != tensor.shape[0]:
            tensor = self._extended(name, tensor, rows)
        if dtype == tensor.dtype:
            return tensor
        with np.errstate(over="ignore"):
            changed = tensor.astype(dtype)
        try:
            require_finite(changed, name, self.where(name))
        except UsageError:
            raise UsageError(
                f"{name} in {self.where(name)} reaches {np.abs(tensor).max():g}, which "
                f"{dtype.name} can't hold; choose another --dtype"
            ) from None
        return changed

    def _extended(self, name: str, tensor: np.ndarray, rows: int) -> np.ndarray:
        if name == WORD_EMBEDDING:
            return _padded(tensor, rows)
        how, seed = self._changes.new_positions, self._changes.seed
        return extend_positions(tensor, rows, how, name=name, seed=seed)


def _new_dtype(dtype: np.dtype, changes: Changes) -> np.dtype:
    return dtype if changes.dtype is None or dtype == np.int8 else changes.dtype


def _new_rows(source: WeightSource, changes: Changes) -> dict[str, int]:
    """The new number of rows of every table that gets more."""
    rows: dict[str, int] = {}
    multiple = changes.pad_vocab_to_multiple_of
    if multiple is not None:
        words = source.tensors[WORD_EMBEDDING].shape[0]
        rows[WORD_EMBEDDING] = -(-words // multiple) * multiple
    length = changes.max_sequence_length
    if length is not None:
        tables = [name for name in POSITION_TABLES if name in source.tensors]
        if not tables:
            raise UsageError(
                f"{source.path} has relative or rotary positions, and so no table to extend"
            )
        wanted = length + len(tables) - 1  # two tables have a row for position 0 as well
        for name in tables:
            if source.tensors[name].shape[0] > wanted:
                raise UsageError(
                    f"{name} in {source.where(name)} has {source.tensors[name].shape[0]} rows, "
                    f"but --max_sequence_length={length} asks for {wanted}, and tables "
                    "are not shortened"
                )
            rows[name] = wanted
    return {name: new for name, new in rows.items() if new != source.tensors[name].shape[0]}


def _padded(tensor: np.ndarray, rows: int) -> np.ndarray:
    padding = np.zeros((rows - tensor.shape[0], tensor.shape[1]), tensor.dtype)
    return np.concatenate([tensor, padding])
