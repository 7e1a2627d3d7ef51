"""What two networks are run on to be compared."""

from __future__ import annotations

import dataclasses
import os
from zipfile import BadZipFile

import numpy as np
from etils import epath
from jaxtyping import Int

from glm_jax.errors import UsageError
from glm_jax.io.paths import resolve_path
from glm_jax.model import GLMConfig, RelativeGLMConfig

DEFAULT_LENGTH = 64


@dataclasses.dataclass(frozen=True)
class Inputs:
    """One batch, in the original's terms.

    Attributes:
      tokens: Part A followed by Part B.
      position_ids: row 0 the position in the text, row 1 the position inside the blank; [B, L] for
        one-dimensional positions, None for relative ones.
      attention_mask: the length of Part A, [B] or [1] for all, or a full 0/1 mask, 1 where a
        position (third axis) sees another (fourth axis).
    """

    tokens: Int[np.ndarray, "B L"]
    position_ids: Int[np.ndarray, "B 2 L"] | Int[np.ndarray, "B L"] | None
    attention_mask: Int[np.ndarray, "#B"] | Int[np.ndarray, "#B 1 L L"]


def random_inputs(
    config: GLMConfig | RelativeGLMConfig, seed: int, batch_size: int, length: int | None
) -> Inputs:
    """Random tokens, each row a Part A of random length and one blank that takes the rest.

    Args:
      config: the network that they are for.
      seed: the same seed gives the same inputs.
      batch_size: B.
      length: L; None for 64, or as many positions as the network has.

    Raises:
      UsageError: the network has fewer positions.
    """
    longest = config.max_sequence_length if isinstance(config, GLMConfig) else None
    if length is None:
        length = min(DEFAULT_LENGTH, longest or DEFAULT_LENGTH)
    if longest is not None and length > longest:
        raise UsageError(f"--length is {length}, but the network's positions end at {longest}")
    draw = np.random.default_rng(seed)
    tokens = draw.integers(0, config.vocab_size, (batch_size, length))
    prefix = draw.integers(1, length + 1, batch_size)
    blank = draw.integers(0, prefix)
    index, prefix_length = np.arange(length), prefix[:, None]
    in_text = np.where(index < prefix_length, index, blank[:, None])
    in_blank = np.where(index < prefix_length, 0, index - prefix_length + 1)
    position_ids = np.stack([in_text, in_blank], axis=1)
    return Inputs(tokens, _positions_for(config, position_ids), prefix)


def read_inputs(given: str | os.PathLike[str], config: GLMConfig | RelativeGLMConfig) -> Inputs:
    """Inputs from a .npz file with arrays `tokens`, `position_ids` and `attention_mask`.

    Args:
      given: the file, a path or URL.
      config: the network that they are for.

    Raises:
      UsageError: it is no such file, or its arrays don't fit each other or the network.
    """
    path = resolve_path(given, "--inputs")
    names = ["tokens", "position_ids", "attention_mask"]
    if isinstance(config, RelativeGLMConfig):
        names.remove("position_ids")
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in names if name in file}
    except (OSError, ValueError, BadZipFile, EOFError, AttributeError, TypeError) as error:
        raise UsageError(f"{path} is no readable .npz file: {error}") from error
    for name in names:
        if name not in arrays:
            raise UsageError(f"{path} has no array {name!r}; expected {', '.join(names)}")
    tokens, mask = arrays["tokens"], arrays["attention_mask"]
    _check_shape(path, "tokens", tokens, [("B", "L")], {})
    sizes = {"B": len(tokens), "L": tokens.shape[1]}
    _check_range(path, "tokens", tokens, config.vocab_size)
    _check_shape(path, "attention_mask", mask, [("B",), (1,), ("B", 1, "L", "L"), (1, 1, "L", "L")],
                 sizes)  # fmt: skip
    position_ids = arrays.get("position_ids")
    if isinstance(config, GLMConfig) and position_ids is not None:
        flat = [] if config.block_position_encoding else [("B", "L")]
        _check_shape(path, "position_ids", position_ids, [("B", 2, "L"), *flat], sizes)
        position_ids = _positions_for(config, position_ids)
        assert position_ids is not None
        _check_range(path, "position_ids", position_ids, config.num_positions)
    # The original writes some masks as 0.0 and 1.0.
    return Inputs(tokens, position_ids, mask.astype(np.int64))


def _positions_for(
    config: GLMConfig | RelativeGLMConfig, position_ids: np.ndarray
) -> np.ndarray | None:
    if isinstance(config, RelativeGLMConfig):
        return None
    if config.block_position_encoding or position_ids.ndim == 2:
        return position_ids
    return position_ids[:, 0]


def _check_shape(
    path: epath.Path,
    name: str,
    array: np.ndarray,
    allowed: list[tuple[str | int, ...]],
    sizes: dict[str, int],
) -> None:
    """Raises UsageError unless the array has one of these shapes, with letters for sizes."""
    for shape in allowed:
        expected = [sizes.get(axis) if isinstance(axis, str) else axis for axis in shape]
        if array.ndim == len(shape) and all(
            found == size if size is not None else found > 0
            for found, size in zip(array.shape, expected, strict=True)
        ):
            return
    expected_shapes = " or ".join(f"[{', '.join(map(str, shape))}]" for shape in allowed)
    known = "".join(f", {letter} = {size}" for letter, size in sizes.items())
    raise UsageError(
        f"{name} in {path} has shape {list(array.shape)}, expected {expected_shapes}{known}"
    )


def _check_range(path: epath.Path, name: str, array: np.ndarray, stop: int) -> None:
    """Raises UsageError unless the array holds integers from 0 to below `stop`."""
    if not np.issubdtype(array.dtype, np.integer):
        raise UsageError(f"{name} in {path} is of {array.dtype}, expected integers")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= stop:
        wrong = low if low < 0 else high
        raise UsageError(f"{name} in {path} holds {wrong}; expected 0 to {stop - 1}")
