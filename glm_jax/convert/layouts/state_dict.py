"""The parameters of GLM in a state dict, whatever wrappers it was saved through.

Training code wraps a network in other modules (DistributedDataParallel, FSDP, torch.compile,
classes with heads), which put components into the names of its tensors, and saves the state dict
inside other dictionaries, next to an optimizer's state. What is plainly a wrapper is removed here;
all else that GLM doesn't have is named, and refused unless it is to be ignored.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from glm_jax.convert.formats.torch_reader import TorchFile
from glm_jax.convert.formats.torch_tensors import StoredTensor
from glm_jax.convert.names import find
from glm_jax.errors import UsageError

# Components of names that DistributedDataParallel and DeepSpeed ("module"), torch.compile, FSDP,
# activation checkpointing and Lightning add wherever they wrap a module.
_WRAPPERS = frozenset(
    {
        "module",
        "_orig_mod",
        "_fsdp_wrapped_module",
        "_checkpoint_wrapped_module",
        "_forward_module",
    }
)
# Where classes with heads, and Hugging Face's, keep the network.
HUGGINGFACE_PREFIX = "glm."
_ATTRIBUTES = frozenset({"model", "glm"})
# Where training code saves the state dict.
_CONTAINERS = ("module", "state_dict", "model_state_dict", "model")
_MAX_DEPTH = 4
_MAX_NAMES_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Parameters:
    """What is GLM's among the tensors of a checkpoint.

    Attributes:
      names: the name under which each tensor is stored, by its original name.
      extra: the stored names of everything else.
    """

    names: Mapping[str, str]
    extra: tuple[str, ...]


def plain_name(name: str) -> str | None:
    """The original's name of a stored tensor; None for one that GLM doesn't have."""
    plain = bare_name(name)
    return None if find(plain) is None else plain


def bare_name(name: str) -> str:
    """A stored name without the components of wrappers and of classes around the network."""
    parts = without_wrappers(name)
    first = next((i for i, part in enumerate(parts) if part not in _ATTRIBUTES), len(parts))
    return ".".join(parts[first:])


def without_wrappers(name: str) -> list[str]:
    """The components of a stored name without those of wrappers."""
    return [part for part in name.split(".") if part not in _WRAPPERS]


def find_parameters(stored: Iterable[str], where: Callable[[str], str]) -> Parameters:
    """Sorts the tensors of a checkpoint by what they are.

    Args:
      stored: their names there.
      where: the file that holds a tensor, for messages.

    Raises:
      UsageError: two tensors are the same parameter.
    """
    names: dict[str, str] = {}
    extra = []
    for name in stored:
        plain = plain_name(name)
        if plain is None:
            extra.append(name)
        elif plain in names:
            raise UsageError(
                f"{shown(names[plain])} in {where(names[plain])} and {shown(name)} in "
                f"{where(name)} are both {plain}: only one of them can be converted"
            )
        else:
            names[plain] = name
    return Parameters(names, tuple(extra))


def refuse_extra(extra: Mapping[str, str], checkpoint: Path) -> None:
    """Refuses a checkpoint with more than GLM's parameters.

    Args:
      extra: the file that holds each tensor that GLM doesn't have.
      checkpoint: what the message names where they are in several files.

    Raises:
      UsageError: there is one.
    """
    if not extra:
        return
    files = set(extra.values())
    file = files.pop() if len(files) == 1 else checkpoint
    what = "a tensor" if len(extra) == 1 else f"{len(extra)} tensors"
    raise UsageError(
        f"{file} has {what} {name_some(extra)}, which GLM doesn't have; glm-jax convert "
        "--ignore_extra leaves such tensors out (ignore_extra=True in Python)"
    )


def name_some(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    listed = ", ".join(map(shown, names[:_MAX_NAMES_SHOWN]))
    more = len(names) - _MAX_NAMES_SHOWN
    return f"{listed} and {more} more" if more > 0 else listed


def shown(name: str) -> str:
    """A name as messages show it: quoted, on one line, of moderate length."""
    return repr(name[:120])[:130]


def read_state_dict(file: TorchFile) -> tuple[dict[str, StoredTensor], list[str]]:
    """The tensors of a file's state dict by their stored names, and what else is between them.

    Raises:
      UsageError: there is no state dict, more than one, or a parameter that is no tensor.
    """
    state = _state_dict(file)
    tensors, others = {}, []
    for key, value in state.items():
        name = key if isinstance(key, str) else f"a key of type {type(key).__name__}"
        if isinstance(key, str) and isinstance(value, StoredTensor):
            tensors[key] = value
        elif plain_name(name) is None:
            others.append(name)
        else:
            raise UsageError(f"{shown(name)} in {file.path} is not a tensor")
    if not tensors:
        raise UsageError(f"{file.path} holds no parameters")
    return tensors, others


def _state_dict(file: TorchFile) -> dict[Any, Any]:
    if not isinstance(file.content, dict):
        raise UsageError(f"{file.path} holds no parameters")
    found = [*_walk(file.content, "", 0, set())]
    ours = [(path, state) for path, state in found if any(map(_is_parameter, state.items()))]
    if len(ours) > 1:
        keys = " and ".join(repr(path) if path else "the outermost keys" for path, _ in ours)
        raise UsageError(
            f"{file.path} holds parameters of GLM under {keys}: save one of them alone"
        )
    # Without any, the innermost dictionary is the one to name tensors of.
    return ours[0][1] if ours else found[-1][1]


def _walk(
    content: dict[Any, Any], path: str, depth: int, seen: set[int]
) -> Iterator[tuple[str, dict[Any, Any]]]:
    """A dictionary and those in it that may be state dicts, each once, with the keys to them."""
    seen.add(id(content))
    yield path, content
    for key in _CONTAINERS:
        inner = content.get(key)
        if isinstance(inner, dict) and inner and id(inner) not in seen and depth < _MAX_DEPTH:
            yield from _walk(inner, f"{path}.{key}" if path else key, depth + 1, seen)


def _is_parameter(item: tuple[Any, Any]) -> bool:
    key, value = item
    return isinstance(key, str) and isinstance(value, StoredTensor) and plain_name(key) is not None
