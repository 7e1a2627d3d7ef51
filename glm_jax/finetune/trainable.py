"""Which parameters a finetuning run trains, and trees that hold a part of the parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from jaxtyping import PyTree

from glm_jax.convert.base_weights import ADAPTER_MATRICES, PREFIX_FOLDERS, TASK_PARAMETERS
from glm_jax.errors import UsageError

LAYERS, LATER_LAYERS = "layers", "later_layers"

IsTrained = Callable[[str], bool]
"""Whether the parameter of a path, such as "layers/mlp/up/kernel", is trained."""


def train_all(_path: str) -> bool:
    """Trains every parameter."""
    return True


@dataclass(frozen=True)
class TrainedParameters:
    """Calls for a path: whether its parameter is trained. Adapters, heads and prompts always are.

    Attributes:
      freeze: patterns of paths in the network's tree that are frozen, as in shells; a pattern that
        matches a folder of the tree matches all below.
      freeze_network: freezes all of the network.
      train_layers: trains what is below `layers` nevertheless: the first layers, where the others
        are a stack of their own.
    """

    freeze: tuple[str, ...] = ()
    freeze_network: bool = False
    train_layers: bool = False

    def __call__(self, path: str) -> bool:
        """Whether the parameter is trained."""
        if is_added(path):
            return True
        if self.freeze_network and not (self.train_layers and path.startswith(f"{LAYERS}/")):
            return False
        return not any(matches(pattern, network_path(path)) for pattern in self.freeze)

    def check(self, network: Sequence[str], *, anything_added: bool) -> None:
        """Makes sure that every pattern means something, and that something is left to train.

        Args:
          network: the paths of the network's parameters, with one stack of layers.
          anything_added: whether there are adapters, prompts or a head.

        Raises:
          UsageError: a pattern matches no parameter of the network, or all are frozen.
        """
        for pattern in self.freeze:
            if not any(matches(pattern, path) for path in network):
                raise UsageError(
                    f"finetune.freeze has {pattern!r}, which matches no parameter of the network; "
                    f"they are {', '.join(network)}"
                )
        if not anything_added and not any(map(self, network)):
            raise UsageError(
                "finetune.freeze and finetune.freeze_transformer leave nothing to train: there "
                "are no adapters (lora.rank), prompts or head"
            )


def is_added(path: str) -> bool:
    """Whether a parameter is of a head, of prompts, of an adapter or of a prefix."""
    parts = path.split("/")
    if not set(PREFIX_FOLDERS).isdisjoint(parts):
        return True
    return parts[0] in TASK_PARAMETERS or parts[-1] in ADAPTER_MATRICES


def matches(pattern: str, path: str) -> bool:
    """Whether a pattern is that of a path or of a folder that it is in."""
    parts = path.split("/")
    return any(fnmatchcase("/".join(parts[:end]), pattern) for end in range(1, len(parts) + 1))


def network_path(path: str) -> str:
    """The path in a network with one stack of layers."""
    first, slash, rest = path.partition("/")
    return f"{LAYERS}{slash}{rest}" if first == LATER_LAYERS else path


def leaf_paths(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of nested dicts with its path, the parts joined by "/"."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaf_paths(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def from_paths(leaves: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The inverse of `leaf_paths`."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves:
        *folders, name = path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[name] = leaf
    return tree


def partition(tree: PyTree, is_trained: IsTrained) -> tuple[dict[str, Any], dict[str, Any]]:
    """The trained and the frozen leaves of a tree of parameters, or of what is laid out as one."""
    leaves = list(leaf_paths(tree))
    trained = from_paths((path, leaf) for path, leaf in leaves if is_trained(path))
    return trained, from_paths((path, leaf) for path, leaf in leaves if not is_trained(path))


def join(*trees: PyTree) -> dict[str, Any]:
    """One tree with the leaves of all; where two have the same path, the later one's."""
    leaves: dict[str, Any] = {}
    for tree in trees:
        leaves.update(leaf_paths(tree))
    return from_paths(leaves.items())


def separate_layers(params: PyTree, num_layers: int) -> dict[str, Any]:
    """A network's parameters with its first layers in a stack of their own, see `GLM`."""
    if not num_layers:
        return dict(params)
    stacks = dict(leaf_paths(params[LAYERS]))
    first = from_paths((path, leaf[:num_layers]) for path, leaf in stacks.items())
    later = from_paths((path, leaf[num_layers:]) for path, leaf in stacks.items())
    return {**params, LAYERS: first, LATER_LAYERS: later}


def layer_size(params: PyTree) -> int:
    """The number of parameters of the layers in a tree of shapes or arrays."""
    return sum(
        math.prod(leaf.shape)
        for path, leaf in leaf_paths(params)
        if path.partition("/")[0] in (LAYERS, LATER_LAYERS)
    )
