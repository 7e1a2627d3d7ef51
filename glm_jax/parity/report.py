"""What a comparison of two checkpoints says: to people, and as JSON."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from rich.table import Table

from glm_jax.parity.compare import Difference, first_beyond


@dataclasses.dataclass(frozen=True)
class Side:
    """One of the two checkpoints.

    Attributes:
      path: what the user named.
      kind: "native", "original" or "huggingface".
      engine: what ran it, "JAX" or "PyTorch".
      heads: how its number of attention heads is known.
    """

    path: str
    kind: str
    engine: str
    heads: str


@dataclasses.dataclass(frozen=True)
class ParityReport:
    """A finished comparison.

    Attributes:
      first, second: the checkpoints, A and B.
      num_attention_heads: H of both.
      inputs: where the inputs came from.
      tolerance: the largest absolute difference allowed at any station.
      differences: every station in the order of the pass.
      explanation: what is different about the weights; None within the tolerance.
      rounding: the largest difference in float32, where it is beyond the tolerance with the same
        weights; the differences are those in float64 then. None where they are float32's.
    """

    first: Side
    second: Side
    num_attention_heads: int
    inputs: str
    tolerance: float
    differences: list[Difference]
    explanation: str | None
    rounding: float | None = None

    @property
    def dtype(self) -> str:
        """What the networks were compared in."""
        return "float32" if self.rounding is None else "float64"

    @property
    def passed(self) -> bool:
        """Whether every station is within the tolerance."""
        return first_beyond(self.differences, self.tolerance) is None

    def verdict(self) -> str:
        """One sentence: equal within the tolerance, or where and how far they part."""
        beyond = first_beyond(self.differences, self.tolerance)
        if beyond is None:
            worst = max(self.differences, key=lambda each: each.max_absolute)
            if worst.max_absolute == 0:
                return "the same, bit for bit, at every station"
            rounding = "" if self.rounding is None else f" in {self.dtype}"
            return (
                f"equal within {self.tolerance:g}{rounding}: the largest difference is "
                f"{worst.max_absolute:.1e}, at {worst.station}"
            )
        index = self.differences.index(beyond)
        agree = f" and agree until {self.differences[index - 1].station}" if index else ""
        return (
            f"A and B differ by more than {self.tolerance:g} from {beyond.station} on "
            f"({beyond.max_absolute:.1e} there){agree}: {self.explanation}"
        )

    def heading(self) -> list[str]:
        """What was compared."""
        sides = (("A", self.first), ("B", self.second))
        return [
            *(
                f"{letter}       {side.path} ({side.kind}, run by {side.engine})"
                for letter, side in sides
            ),
            f"heads   {self.num_attention_heads} (A: {self.first.heads}, B: {self.second.heads})",
            f"inputs  {self.inputs}",
            *self._rounding_note(),
        ]

    def _rounding_note(self) -> list[str]:
        if self.rounding is None:
            return []
        return [
            f"dtype   {self.dtype}: the weights are the same, and float32's rounding makes up to "
            f"{self.rounding:.1e}"
        ]

    def table(self) -> Table:
        """One line per station."""
        table = Table(box=None, pad_edge=False)
        for name in ("station", "max |A - B|", "max |A|", "KL per token", "top-1 agreement", ""):
            table.add_column(name, justify="left" if name in ("station", "") else "right")
        for each in self.differences:
            within = each.max_absolute <= self.tolerance
            table.add_row(
                each.station,
                f"{each.max_absolute:.2e}",
                f"{each.largest_value:.1f}",
                f"{each.kl_per_token:.1e}",
                f"{100 * each.top1_agreement:.2f}%",
                "" if within else "beyond",
                style=None if within else "red",
            )
        return table

    def as_json(self) -> dict[str, Any]:
        """The same as JSON values; what is not finite is null."""
        beyond = first_beyond(self.differences, self.tolerance)
        rows = [dataclasses.asdict(each) for each in self.differences]
        return {
            "passed": self.passed,
            "verdict": self.verdict(),
            "first_beyond": None if beyond is None else beyond.station,
            "tolerance": self.tolerance,
            "dtype": self.dtype,
            "float32_difference": _finite(self.rounding),
            "a": dataclasses.asdict(self.first),
            "b": dataclasses.asdict(self.second),
            "num_attention_heads": self.num_attention_heads,
            "inputs": self.inputs,
            "differences": [{name: _finite(value) for name, value in row.items()} for row in rows],
        }


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
