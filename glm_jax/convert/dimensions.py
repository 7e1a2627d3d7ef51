"""The dimensions of a network from the shapes of its tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from glm_jax.convert.names import LAYER, TABLE, find, original_order
from glm_jax.convert.weights import TensorInfo
from glm_jax.errors import UsageError

if TYPE_CHECKING:
    from glm_jax.model.config import GLMConfig
    from glm_jax.model.relative import RelativeGLMConfig

# Width of an attention head in every published model.
PUBLISHED_HEAD_SIZE = 64

WORD_EMBEDDING = "word_embeddings.weight"
POSITION_TABLES = (
    "transformer.position_embeddings.weight",
    "transformer.block_position_embeddings.weight",
)
_CONTENT_BIAS = "transformer.r_w_bias"

# Rows of the Chinese tokenizer's vocabulary padded to a multiple of 128, and the ids of eop and
# [gMASK] with the original's --fix-command-token.
_CHINESE_ROWS, _CHINESE_EOP, _CHINESE_GMASK = 50048, 50007, 50009


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
    """

    vocab_size: int
    num_layers: int
    hidden_size: int
    position_rows: int
    block_positions: bool
    relative_heads: int | None

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
            if entry.original in matrices:
                by_entry[entry.original] = matrices[entry.original]
            elif f"{template}.weight" in matrices and kind == "bias":
                by_entry[entry.original] = matrices[f"{template}.weight"][:1]
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
        shapes: dict[str, tuple[int, ...]] = {
            WORD_EMBEDDING: (self.vocab_size, D),
            f"{layer}.attention.query_key_value.weight": (3 * D, D),
            f"{layer}.attention.dense.weight": (D, D),
            f"{layer}.mlp.dense_h_to_4h.weight": (4 * D, D),
            f"{layer}.mlp.dense_4h_to_h.weight": (D, 4 * D),
        }
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


def measure(
    tensors: Mapping[str, TensorInfo], checkpoint: str, where: Callable[[str], str]
) -> Dimensions:
    """The dimensions of the network with these tensors, every one of them checked.

    Args:
      tensors: by their original names, merged over ranks.
      checkpoint: what messages call it.
      where: the file that holds a tensor, for messages.

    Raises:
      UsageError: a tensor is missing, not GLM's, or of another shape than the others imply.
    """
    num_layers = 0
    for name in tensors:
        found = find(name)
        if found is None:
            raise UsageError(f"{where(name)} has a tensor {name[:120]!r}, which GLM doesn't have")
        num_layers = max(num_layers, 0 if found[1] is None else found[1] + 1)
    for name in (WORD_EMBEDDING, "transformer.layers.0.attention.dense.weight"):
        if name not in tensors:
            raise UsageError(f"{checkpoint} has no tensor {name}")
    vocab_size, hidden_size = _axes(tensors, WORD_EMBEDDING, where)
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
    )
    expected = dimensions.shapes() if num_layers <= len(tensors) else {}
    for name, shape in expected.items():
        if name not in tensors:
            raise UsageError(f"{checkpoint} has no tensor {name}, but others that go with it")
        if tensors[name].shape != shape:
            raise _wrong_shape(name, tensors, where, str(list(shape)))
    for name in tensors:
        if name not in expected:
            raise UsageError(
                f"{where(name)} has a tensor {name}, but not those that go with it in a network"
            )
    return dimensions


def infer_config(
    tensors: Mapping[str, TensorInfo], num_attention_heads: int | None = None
) -> GLMConfig | RelativeGLMConfig:
    """The configuration of the network with these tensors.

    Args:
      tensors: by their original names, merged over ranks.
      num_attention_heads: H, which the shapes don't show; None for the hidden size / 64 of every
        published model.

    Raises:
      UsageError: the tensors are not those of one network, or H doesn't go with them.
    """
    dimensions = measure(tensors, "the checkpoint", lambda _: "the checkpoint")
    heads = find_heads(dimensions, num_attention_heads)
    if dimensions.relative_heads is not None:
        from glm_jax.model.relative import RelativeGLMConfig

        return RelativeGLMConfig(
            vocab_size=dimensions.vocab_size,
            num_layers=dimensions.num_layers,
            hidden_size=dimensions.hidden_size,
            num_attention_heads=heads,
        )
    from glm_jax.model.config import GLMConfig

    return GLMConfig(
        vocab_size=dimensions.vocab_size,
        num_layers=dimensions.num_layers,
        hidden_size=dimensions.hidden_size,
        num_attention_heads=heads,
        max_sequence_length=dimensions.max_sequence_length,
        block_position_encoding=dimensions.block_positions,
    )


def find_heads(dimensions: Dimensions, num_attention_heads: int | None) -> int:
    """The number of attention heads: the one that is shown or given, else hidden size / 64.

    Raises:
      UsageError: it doesn't divide the hidden size, or the tensors show another.
    """
    hidden_size, shown = dimensions.hidden_size, dimensions.relative_heads
    if num_attention_heads is None:
        if shown is None and hidden_size % PUBLISHED_HEAD_SIZE:
            raise UsageError(
                f"the checkpoint doesn't say how many attention heads it has, and its hidden size "
                f"of {hidden_size} is no multiple of {PUBLISHED_HEAD_SIZE}: give the number with "
                "--num_attention_heads"
            )
        return shown or hidden_size // PUBLISHED_HEAD_SIZE
    if num_attention_heads < 1 or hidden_size % num_attention_heads:
        raise UsageError(
            f"--num_attention_heads is {num_attention_heads}, which does not divide the "
            f"checkpoint's hidden size of {hidden_size}"
        )
    if shown not in (None, num_attention_heads):
        raise UsageError(
            f"--num_attention_heads is {num_attention_heads}, but the checkpoint has {shown} heads"
        )
    return num_attention_heads


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
