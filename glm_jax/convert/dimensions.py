"""The dimensions of a network from the shapes of its tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from glm_jax.convert.names import LAYER, SCALE, TABLE, find, original_order
from glm_jax.convert.weights import TensorInfo
from glm_jax.errors import UsageError

WORD_EMBEDDING = "word_embeddings.weight"
POSITION_TABLES = (
    "transformer.position_embeddings.weight",
    "transformer.block_position_embeddings.weight",
)
_CONTENT_BIAS = "transformer.r_w_bias"
_DENSE = "transformer.layers.0.attention.dense.weight"
_UP = "transformer.layers.0.mlp.dense_h_to_4h.weight"
PREFIX_ENCODER = "transformer.prefix_encoder"
PREFIX_EMBEDDING = f"{PREFIX_ENCODER}.embedding.weight"
LAYER_PREFIX = "transformer.layers.0.attention.prefix.weight"

# What quantization changes in every layer.
QUANTIZED_MATRICES = (
    ".attention.query_key_value.weight",
    ".attention.dense.weight",
    ".mlp.dense_h_to_4h.weight",
    ".mlp.dense_4h_to_h.weight",
)
_WITHOUT_BIAS = ("embeddings", "embedding", ".attention.prefix")


@dataclasses.dataclass(frozen=True)
class Dimensions:
    """What the shapes say of a network.

    Attributes:
      vocab_size: rows of the word embedding, V.
      num_layers: N.
      hidden_size: D.
      position_rows: rows of the position table, 0 in the relative variant.
      block_positions: whether there is a table of block positions.
      relative_heads: H where the tensors show it, in the relative variant.
      inner_size: width of the MLP, F; 0 for 4 D.
      rotary: whether positions need no tensors, as in ChatGLM.
      quantization: of the matrices of the layers, one of `QUANTIZATIONS`.
      quantized_words: whether the word embedding is quantized so, too.
      prefix_tokens: length of every layer's trained prefix.
      prefix_projection: whether prefixes are projected from one embedding.
    """

    vocab_size: int
    num_layers: int
    hidden_size: int
    position_rows: int
    block_positions: bool
    relative_heads: int | None
    inner_size: int = 0
    rotary: bool = False
    quantization: str = "none"
    quantized_words: bool = False
    prefix_tokens: int = 0
    prefix_projection: bool = False

    @property
    def max_sequence_length(self) -> int:
        """The largest position (0 in the relative variant)."""
        return self.position_rows - 1 if self.block_positions else self.position_rows

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor that such a network has, with its shape, in the original's order."""
        matrices = self._matrices()
        by_entry: dict[str, tuple[int, ...]] = {}
        for entry in TABLE:
            template, kind = entry.original.rsplit(".", 1)
            matrix = matrices.get(f"{template}.weight")
            if entry.original in matrices:
                by_entry[entry.original] = self._stored(entry.original, matrices[entry.original])
            elif matrix is not None and kind == SCALE:
                if self.is_quantized(f"{template}.weight"):
                    by_entry[entry.original] = matrix[:1]
            elif matrix is not None and kind == "bias" and not template.endswith(_WITHOUT_BIAS):
                by_entry[entry.original] = matrix[:1]
            elif template.endswith("layernorm"):
                by_entry[entry.original] = (self.hidden_size,)
        natives = [entry.native for entry in TABLE if entry.original in by_entry]
        shapes = {}
        for name in original_order(natives, self.num_layers):
            found = find(name)
            assert found is not None
            shapes[name] = by_entry[found[0].original]
        return shapes

    def _matrices(self) -> dict[str, tuple[int, ...]]:
        """The shapes of embeddings and matrices, by the names of `TABLE`."""
        D, layer = self.hidden_size, f"transformer.layers.{LAYER}"
        F = self.inner_size or 4 * D
        shapes: dict[str, tuple[int, ...]] = {
            WORD_EMBEDDING: (self.vocab_size, D),
            f"{layer}.attention.query_key_value.weight": (3 * D, D),
            f"{layer}.attention.dense.weight": (D, D),
            f"{layer}.mlp.dense_h_to_4h.weight": (F, D),
            f"{layer}.mlp.dense_4h_to_h.weight": (D, F),
        }
        if self.rotary:
            return shapes | self._prefix(f"{layer}.attention")
        if self.relative_heads is None:
            tables = POSITION_TABLES[: 1 + self.block_positions]
            return shapes | dict.fromkeys(tables, (self.position_rows, D))
        biases = (self.relative_heads, D // self.relative_heads)
        return shapes | {
            _CONTENT_BIAS: biases,
            "transformer.r_r_bias": biases,
            "transformer.position_embeddings.inv_freq": (D // 2,),
            f"{layer}.attention.relative.weight": (D, D),
        }

    def _prefix(self, attention: str) -> dict[str, tuple[int, ...]]:
        """The shapes of a trained prefix."""
        P, D = self.prefix_tokens, self.hidden_size
        if not P:
            return {}
        if not self.prefix_projection:
            return {f"{attention}.prefix.weight": (P, 2 * D)}
        return {
            f"{attention}.prefix_projection.weight": (2 * D, D),
            PREFIX_EMBEDDING: (P, D),
            f"{PREFIX_ENCODER}.trans.0.weight": (D, D),
        }

    def is_quantized(self, name: str) -> bool:
        """Whether a weight, by its name in `TABLE` or its own, is stored as integers."""
        if name == WORD_EMBEDDING:
            return self.quantized_words
        return self.quantization != "none" and name.endswith(QUANTIZED_MATRICES)

    def _stored(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that a matrix is stored in: int4 has two columns in one byte."""
        if self.is_quantized(name) and self.quantization == "int4":
            return shape[0], shape[1] // 2
        return shape


def measure(
    tensors: Mapping[str, TensorInfo],
    checkpoint: str,
    where: Callable[[str], str],
    *,
    rotary: bool = False,
) -> Dimensions:
    """The dimensions of the network with these tensors, every one of them checked.

    Args:
      tensors: by their original names, merged over ranks.
      checkpoint: what messages call it.
      where: the file that holds a tensor, for messages.
      rotary: whether it may be a network without tables of positions, ChatGLM.

    Raises:
      UsageError: a tensor is missing, not GLM's, or of another shape than the others imply.
    """
    num_layers = 0
    for name in tensors:
        found = find(name)
        if found is None:
            raise UsageError(f"{where(name)} has a tensor {name[:120]!r}, which GLM doesn't have")
        num_layers = max(num_layers, 0 if found[1] is None else found[1] + 1)
    for name in (WORD_EMBEDDING, _DENSE):
        if name not in tensors:
            raise UsageError(f"{checkpoint} has no tensor {name}")
    vocab_size, hidden_size = _axes(tensors, WORD_EMBEDDING, where)
    quantized_words = tensors[WORD_EMBEDDING].dtype == np.int8
    if quantized_words:
        hidden_size, _ = _axes(tensors, _DENSE, where)
    position_rows, relative_heads = 0, None
    if _CONTENT_BIAS in tensors:
        relative_heads, head_size = _axes(tensors, _CONTENT_BIAS, where)
        if relative_heads * head_size != hidden_size:
            raise _wrong_shape(_CONTENT_BIAS, tensors, where, f"[H, {hidden_size} / H]")
    elif POSITION_TABLES[0] in tensors:
        position_rows, _ = _axes(tensors, POSITION_TABLES[0], where)
    dimensions = Dimensions(
        vocab_size=vocab_size,
        num_layers=num_layers,
        hidden_size=hidden_size,
        position_rows=position_rows,
        block_positions=POSITION_TABLES[1] in tensors,
        relative_heads=relative_heads,
        rotary=rotary and not position_rows and relative_heads is None,
        quantization=_quantization(tensors, where),
        quantized_words=quantized_words,
        **_rotary_sizes(tensors, hidden_size),
    )
    _check_tensors(tensors, dimensions, checkpoint, where)
    return dimensions


def _check_tensors(
    tensors: Mapping[str, TensorInfo],
    dimensions: Dimensions,
    checkpoint: str,
    where: Callable[[str], str],
) -> None:
    """Checks that the tensors are exactly those of a network.

    Raises:
      UsageError: they are not.
    """
    expected = dimensions.shapes() if dimensions.num_layers <= len(tensors) else {}
    for name, shape in expected.items():
        if name not in tensors:
            raise UsageError(f"{checkpoint} has {_missing(name)}")
        if tensors[name].shape != shape:
            raise _wrong_shape(name, tensors, where, str(list(shape)))
        if (tensors[name].dtype == np.int8) != dimensions.is_quantized(name):
            expected_dtype = "int8, as others are" if dimensions.is_quantized(name) else "floats"
            raise UsageError(
                f"{name} in {where(name)} has dtype {tensors[name].dtype}, expected "
                f"{expected_dtype}"
            )
    for name in tensors:
        if name not in expected:
            raise UsageError(
                f"{where(name)} has a tensor {name}, but not those that go with it in a network"
            )


def _rotary_sizes(tensors: Mapping[str, TensorInfo], hidden_size: int) -> dict[str, Any]:
    """What only networks without tables of positions choose freely."""
    if any(name in tensors for name in (_CONTENT_BIAS, POSITION_TABLES[0])):
        return {}
    inner = tensors.get(_UP, TensorInfo((), np.dtype(np.float32))).shape[:1]
    prefix = tensors.get(LAYER_PREFIX) or tensors.get(PREFIX_EMBEDDING)
    return {
        "inner_size": 0 if inner in ((), (4 * hidden_size,)) else inner[0],
        "prefix_tokens": prefix.shape[0] if prefix and prefix.shape else 0,
        "prefix_projection": PREFIX_EMBEDDING in tensors,
    }


def _quantization(tensors: Mapping[str, TensorInfo], where: Callable[[str], str]) -> str:
    """How the matrices of the layers are stored, by the first of them.

    Raises:
      UsageError: as no quantization stores them.
    """
    rows, columns = _axes(tensors, _DENSE, where)
    if tensors[_DENSE].dtype != np.int8:
        return "none"
    found = {rows: "int8", rows / 2: "int4"}.get(columns)
    if found is None:
        raise _wrong_shape(_DENSE, tensors, where, f"[{rows}, {rows}] or, as int4, half as wide")
    return found


def _missing(name: str) -> str:
    """What a checkpoint without this tensor has."""
    if name.endswith(f".{SCALE}"):
        matrix = name.removesuffix(SCALE) + "weight"
        return f"the quantized matrix {matrix}, but not its scales {name}"
    return f"no tensor {name}, but others that go with it"


def _axes(
    tensors: Mapping[str, TensorInfo], name: str, where: Callable[[str], str]
) -> tuple[int, int]:
    shape = tensors[name].shape
    if len(shape) != 2 or 0 in shape:
        raise _wrong_shape(name, tensors, where, "two axes")
    return shape[0], shape[1]


def _wrong_shape(
    name: str, tensors: Mapping[str, TensorInfo], where: Callable[[str], str], expected: str
) -> UsageError:
    return UsageError(
        f"{name} in {where(name)} has shape {list(tensors[name].shape)}, expected {expected}"
    )
