"""What a conversion says at its end."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from typing import Any

from glm_jax.convert.infer_config import PUBLISHED_HEAD_SIZE
from glm_jax.convert.layouts.state_dict import shown
from glm_jax.convert.names import SCALE
from glm_jax.convert.weights import SourceMetadata, TensorInfo


@dataclasses.dataclass(frozen=True)
class Report:
    """A finished conversion.

    Attributes:
      source: what was read, of `source_kind`.
      out: what was written, of `kind`.
      config: the model's configuration.
      heads: how the number of attention heads is known.
      iteration: the training step, None where the source doesn't record it.
      tensors: what was written, by original names.
      side_files: other files copied.
      seconds: from start to end.
      fault: a known fault of the weights, None without one.
      extended: how the position tables were extended, None where they weren't.
      extra: the names of tensors of the source that were left out.
      notes: what else is to be known of the destination.
    """

    source: str | os.PathLike[str]
    source_kind: str
    out: str | os.PathLike[str]
    kind: str
    config: Any
    heads: str
    iteration: int | None
    tensors: Mapping[str, TensorInfo]
    side_files: tuple[str, ...]
    seconds: float
    fault: str | None
    extended: str | None = None
    extra: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def num_parameters(self) -> int:
        """Elements of all tensors, without scales; a byte of int4 holds two."""
        packed = 2 if getattr(self.config, "quantization", "none") == "int4" else 1
        return sum(
            math.prod(info.shape) * (packed if info.dtype == "int8" else 1)
            for name, info in self.tensors.items()
            if not name.endswith(SCALE)
        )

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(info.nbytes for info in self.tensors.values())

    def lines(self) -> list[str]:
        """The report for people."""
        config = self.config
        dtypes = sorted({info.dtype.name for info in self.tensors.values()})
        speed = self.num_bytes / 1e6 / max(self.seconds, 1e-9)
        dimensions = f"{config.num_layers} layers, hidden size {config.hidden_size}"
        if hasattr(config, "max_sequence_length"):
            dimensions += f", {config.max_sequence_length} positions"
        lines = [
            f"source       {self.source} ({self.source_kind})",
            f"destination  {self.out} ({self.kind})",
            f"model        {self.num_parameters:,} parameters: {dimensions}, "
            f"vocabulary {config.vocab_size:,}",
            f"heads        {config.num_attention_heads}, {self.heads}",
            f"dtype        {', '.join(dtypes)}",
            f"iteration    {'not recorded' if self.iteration is None else self.iteration}",
            f"written      {self.num_bytes:,} bytes in {self.seconds:.1f} s, {speed:.0f} MB/s",
            f"checked      {len(self.tensors)} of {len(self.tensors)} tensors read back, "
            "checksums (CRC-32) equal",
        ]
        if self.extended:
            lines.append(f"positions    {self.extended}")
        if self.extra:
            names = ", ".join(map(shown, self.extra))
            lines.append(f"left out     {len(self.extra)} that GLM doesn't have: {names}")
        if self.side_files:
            lines.append(f"copied       {', '.join(self.side_files)}")
        lines += [f"note         {note}" for note in self.notes]
        if self.fault:
            lines.append(f"note         {self.fault}")
        return lines


def describe_heads(metadata: SourceMetadata, *, given: bool) -> str:
    """Where the number of heads is from."""
    if given:
        return "as given"
    if metadata.num_attention_heads is not None:
        return "as recorded"
    return f"assumed: hidden size / {PUBLISHED_HEAD_SIZE}, as in every published model"


def readable_bytes(num_bytes: int) -> str:
    """A number of bytes in the largest unit that it fills."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= size:
            return f"{num_bytes / size:.2f} {unit}"
    return f"{num_bytes} bytes"
