"""What a sweep's trials are drawn from: its axes, all their combinations, or random ones."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Iterator, Mapping
from typing import Any

from glm_jax.sweeps.config import SweepConfig

VARIANT = "variant"

# A value for every axis, by its name.
Point = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Choices:
    """An axis with a list of values.

    Attributes:
      name: the setting, or "variant".
      values: in order.
    """

    name: str
    values: tuple[Any, ...]

    def draw(self, generator: random.Random) -> Any:
        """One of them."""
        return self.values[generator.randrange(len(self.values))]


@dataclasses.dataclass(frozen=True)
class Range:
    """An axis with all numbers between two.

    Attributes:
      name: the setting.
      low: the smallest; with two integers, integers are drawn.
      high: the largest, included.
      log: whether the logarithm is drawn evenly.
    """

    name: str
    low: float
    high: float
    log: bool

    @property
    def is_integer(self) -> bool:
        """Whether integers are drawn."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def draw(self, generator: random.Random) -> float:
        """One of the numbers."""
        # As wide as what is rounded to the ends, so that these are as likely as others.
        margin = 0.5 if self.is_integer else 0.0
        low, high = self.low - margin, self.high + margin
        if self.log:
            value = math.exp(generator.uniform(math.log(low), math.log(high)))
        else:
            value = generator.uniform(low, high)
        if self.is_integer:
            value = round(value)
        return min(max(value, self.low), self.high)


Axis = Choices | Range


def axes_of(config: SweepConfig) -> tuple[Axis, ...]:
    """The axes of a sweep, without its seeds: variants first, then lists and ranges."""
    variants = (Choices(VARIANT, tuple(config.variants)),) if config.variants else ()
    choices = (Choices(name, tuple(values)) for name, values in config.choices.items())
    ranges = (
        Range(name, bounds[0], bounds[1], log=tuple(bounds[2:]) == ("log",))
        for name, bounds in config.ranges.items()
    )
    return (*variants, *choices, *ranges)


def grid(axes: tuple[Axis, ...]) -> Iterator[Point]:
    """All combinations of lists, the last axis changing fastest; one empty point without axes."""
    lists = [axis.values for axis in axes if isinstance(axis, Choices)]
    for values in itertools.product(*lists):
        yield {axis.name: value for axis, value in zip(axes, values, strict=True)}


def random_points(axes: tuple[Axis, ...], seed: int, index: int) -> Iterator[Point]:
    """Random candidates for point number `index`, without end; they depend on these numbers only.

    The first that the sweep's constraints allow is the point.
    """
    generator = random.Random(f"{seed} {index}")
    while True:
        yield {axis.name: axis.draw(generator) for axis in axes}
