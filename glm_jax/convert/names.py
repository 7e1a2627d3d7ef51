"""The one table of parameter names, used in both directions.

Each entry pairs an original name with the path in our parameter tree, says how the array is
transposed, and over which axis model-parallel ranks split it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from glm_jax.convert.array_layouts import Layout

LAYER = "{layer}"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One parameter, or one in every layer.

    Attributes:
      original: the original's name; `{layer}` is replaced by the number of the layer.
      native: the path in our tree, its parts joined by "/"; with a layer it has a leading axis N.
      layout: how the array is transposed.
      split_axis: the original's axis that model-parallel ranks share, None where each has all of
        it. The fused arrays are shared third by third.
    """

    original: str
    native: str
    layout: Layout = Layout.SAME
    split_axis: int | None = None

    @property
    def in_layers(self) -> bool:
        """Whether every layer has one."""
        return LAYER in self.original

    def name(self, layer: int) -> str:
        """The original name in one layer."""
        return self.original.replace(LAYER, str(layer))


def _norm(original: str, native: str) -> list[Entry]:
    return [
        Entry(f"{original}.weight", f"{native}/scale"),
        Entry(f"{original}.bias", f"{native}/bias"),
    ]


_LAYER = f"transformer.layers.{LAYER}"
_FUSED = f"{_LAYER}.attention.query_key_value"
_RELATIVE = f"{_LAYER}.attention.relative"
_DENSE = f"{_LAYER}.attention.dense"
_UP, _DOWN = f"{_LAYER}.mlp.dense_h_to_4h", f"{_LAYER}.mlp.dense_4h_to_h"
_PREFIX, _PROJECTION = f"{_LAYER}.attention.prefix", f"{_LAYER}.attention.prefix_projection"
_ENCODER = "transformer.prefix_encoder"
# Of a quantized matrix, one number for each of its rows; next to its weight.
SCALE = "weight_scale"

# In the order of the original's state dict. The relative variant has no position tables, the
# one-dimensional variant no block positions, and the others nothing relative. Only ChatGLM has
# prefixes; its files are read and written by names of their own, see `layouts.chatglm`.
TABLE: tuple[Entry, ...] = (
    Entry("word_embeddings.weight", "word_embedding", split_axis=0),
    Entry(f"word_embeddings.{SCALE}", "word_embedding_scale", split_axis=0),
    Entry("transformer.r_w_bias", "content_bias", split_axis=0),
    Entry("transformer.r_r_bias", "distance_bias", split_axis=0),
    Entry("transformer.position_embeddings.inv_freq", "inverse_frequency"),
    Entry("transformer.position_embeddings.weight", "position_embedding"),
    Entry("transformer.block_position_embeddings.weight", "block_position_embedding"),
    *_norm(f"{_LAYER}.input_layernorm", "layers/attention_layernorm"),
    Entry(
        f"{_FUSED}.weight",
        "layers/attention/query_key_value/kernel",
        Layout.FUSED_MATRIX,
        split_axis=0,
    ),
    Entry(
        f"{_FUSED}.{SCALE}",
        "layers/attention/query_key_value/kernel_scale",
        Layout.FUSED_VECTOR,
        split_axis=0,
    ),
    Entry(
        f"{_FUSED}.bias",
        "layers/attention/query_key_value/bias",
        Layout.FUSED_VECTOR,
        split_axis=0,
    ),
    Entry(f"{_RELATIVE}.weight", "layers/attention/relative/kernel", Layout.MATRIX, split_axis=0),
    Entry(f"{_RELATIVE}.bias", "layers/attention/relative/bias", split_axis=0),
    Entry(f"{_PREFIX}.weight", "layers/attention/prefix/embedding", Layout.PAIRED_ROWS),
    Entry(
        f"{_PROJECTION}.weight",
        "layers/attention/prefix/projection/kernel",
        Layout.PAIRED_MATRIX,
    ),
    Entry(
        f"{_PROJECTION}.bias",
        "layers/attention/prefix/projection/bias",
        Layout.PAIRED_VECTOR,
    ),
    Entry(f"{_DENSE}.weight", "layers/attention/output/kernel", Layout.MATRIX, split_axis=1),
    Entry(f"{_DENSE}.{SCALE}", "layers/attention/output/kernel_scale"),
    Entry(f"{_DENSE}.bias", "layers/attention/output/bias"),
    *_norm(f"{_LAYER}.post_attention_layernorm", "layers/mlp_layernorm"),
    Entry(f"{_UP}.weight", "layers/mlp/up/kernel", Layout.MATRIX, split_axis=0),
    Entry(f"{_UP}.{SCALE}", "layers/mlp/up/kernel_scale", split_axis=0),
    Entry(f"{_UP}.bias", "layers/mlp/up/bias", split_axis=0),
    Entry(f"{_DOWN}.weight", "layers/mlp/down/kernel", Layout.MATRIX, split_axis=1),
    Entry(f"{_DOWN}.{SCALE}", "layers/mlp/down/kernel_scale"),
    Entry(f"{_DOWN}.bias", "layers/mlp/down/bias"),
    *_norm("transformer.final_layernorm", "final_layernorm"),
    Entry(f"{_ENCODER}.embedding.weight", "prefix_encoder/embedding"),
    Entry(f"{_ENCODER}.trans.0.weight", "prefix_encoder/hidden/kernel", Layout.MATRIX),
    Entry(f"{_ENCODER}.trans.0.bias", "prefix_encoder/hidden/bias"),
)

_BY_ORIGINAL = {entry.original: entry for entry in TABLE}
_BY_NATIVE = {entry.native: entry for entry in TABLE}
_LAYER_NUMBER = re.compile(r"(?<=^transformer\.layers\.)(0|[1-9][0-9]{0,4})(?=\.)")


def find(name: str) -> tuple[Entry, int | None] | None:
    """The entry and layer of an original name; None for a name that is no parameter of GLM."""
    match = _LAYER_NUMBER.search(name)
    template = name if match is None else _LAYER_NUMBER.sub(LAYER, name)
    entry = _BY_ORIGINAL.get(template)
    if entry is None or entry.in_layers != (match is not None):
        return None
    return entry, None if match is None else int(match[0])


def entry_of(name: str) -> Entry:
    """The entry of the original name of a parameter.

    Raises:
      KeyError: GLM has no such parameter.
    """
    found = find(name)
    if found is None:
        raise KeyError(name)
    return found[0]


def by_native(path: str) -> Entry | None:
    """The entry of a path in our parameter tree, its parts joined by "/"."""
    return _BY_NATIVE.get(path)


def original_order(natives: Iterable[str], num_layers: int) -> list[str]:
    """The original names of a tree with these native paths, in the original's order."""
    present = set(natives)
    entries = [entry for entry in TABLE if entry.native in present]
    before = [entry for entry in entries if not entry.in_layers]
    last = ("final_layernorm", "prefix_encoder")
    after = [entry for entry in before if entry.native.startswith(last)]
    in_layers = [entry for entry in entries if entry.in_layers]
    return [
        *(entry.original for entry in before if entry not in after),
        *(entry.name(layer) for layer in range(num_layers) for entry in in_layers),
        *(entry.original for entry in after),
    ]


def merged_shape(entry: Entry, shape: Sequence[int], ranks: int) -> tuple[int, ...]:
    """The merged tensor's shape from what one of `ranks` ranks holds."""
    return tuple(
        length * ranks if axis == entry.split_axis else length for axis, length in enumerate(shape)
    )


def splits(entry: Entry, shape: Sequence[int], ranks: int) -> bool:
    """Whether an original tensor of this shape can be shared by `ranks` ranks."""
    return entry.split_axis is None or shape[entry.split_axis] % (ranks * entry.layout.parts) == 0


def _share(entry: Entry, length: int, ranks: int, rank: int) -> list[slice]:
    """The parts of an axis of `length` that one rank holds one after the other."""
    third = length // entry.layout.parts
    part = third // ranks
    return [
        slice(start + rank * part, start + (rank + 1) * part)
        for start in range(0, third * entry.layout.parts, third)
    ]


def split(entry: Entry, tensor: np.ndarray, ranks: int) -> Iterator[np.ndarray]:
    """What each of `ranks` model-parallel ranks holds of an original tensor, one at a time.

    The tensor must be one that `splits`.
    """
    axis = entry.split_axis
    for rank in range(ranks):
        if axis is None or ranks == 1:
            yield tensor
            continue
        parts = [
            tensor[(slice(None),) * axis + (part,)]
            for part in _share(entry, tensor.shape[axis], ranks, rank)
        ]
        yield parts[0] if len(parts) == 1 else np.concatenate(parts, axis=axis)


def merge(entry: Entry, tensors: Iterable[np.ndarray], ranks: int) -> np.ndarray:
    """The merged original tensor from what the ranks hold, taken one at a time.

    The inverse of `split` where `entry.split_axis` is set; else the first rank's tensor.
    """
    axis = entry.split_axis
    merged: np.ndarray | None = None
    for rank, tensor in enumerate(tensors):
        if axis is None or ranks == 1:
            return tensor
        if merged is None:
            merged = np.empty(merged_shape(entry, tensor.shape, ranks), tensor.dtype)
        done = 0
        for part in _share(entry, merged.shape[axis], ranks, rank):
            before = (slice(None),) * axis
            length = part.stop - part.start
            merged[(*before, part)] = tensor[(*before, slice(done, done + length))]
            done += length
    if merged is None:
        raise ValueError("no rank's tensor was given")
    return merged
