"""Sampling settings of blank filling."""

from __future__ import annotations

import dataclasses
from typing import Any

from glm_jax.errors import UsageError

REPEAT_SCOPES = ("blank", "text")


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How blanks are filled: greedily, by drawing, or by beam search.

    Attributes:
      max_blank_length: maximum tokens per blank; limited to the positions of the model.
      min_blank_length: minimum tokens per blank.
      temperature: 0 takes the most probable token; above 0, tokens are drawn from the softmax of
        logits / temperature. None is 1 where `top_k`, `top_p` or `samples` ask for drawing, else 0.
      top_k: draws from the k most probable tokens only; 0 from all.
      top_p: draws from the most probable tokens that together exceed this probability; 1 from all.
      samples: number of independent samples per text.
      seed: of the sampling; results do not depend on the other texts of the batch.
      beams: hypotheses that beam search keeps; 1 disables beam search.
      length_penalty: a hypothesis' score is its log-probability / length^penalty.
      early_stopping: end a beam search when as many hypotheses are complete as there are beams,
        and not when none of the open ones can become better.
      no_repeat_ngram: size of n-grams that may not be repeated; 0 allows all.
      repeat_scope: where n-grams may not be repeated: "blank", within one blank; "text", within
        the prompt and all its blanks.

    Raises:
      UsageError: a field is out of its range, or two exclude each other.
    """

    max_blank_length: int = 64
    min_blank_length: int = 0
    temperature: float | None = None
    top_k: int = 0
    top_p: float = 1.0
    samples: int = 1
    seed: int = 0
    beams: int = 1
    length_penalty: float = 0.0
    early_stopping: bool = False
    no_repeat_ngram: int = 0
    repeat_scope: str = "blank"

    def __post_init__(self) -> None:
        for name in ("max_blank_length", "samples", "beams"):
            _check_integer(name, getattr(self, name), 1, "a positive integer")
        for name in ("min_blank_length", "top_k", "no_repeat_ngram"):
            _check_integer(name, getattr(self, name), 0, "a non-negative integer")
        _check_integer("seed", self.seed, 0, "an integer from 0 to 2^32 - 1", 2**32 - 1)
        if self.temperature is not None:
            _check_number("temperature", self.temperature, 0.0, 100.0)
        _check_number("top_p", self.top_p, 0.0, 1.0)
        _check_number("length_penalty", self.length_penalty, -10.0, 10.0)
        if not isinstance(self.early_stopping, bool):
            raise UsageError(
                f"early_stopping is {self.early_stopping!r}, but must be true or false"
            )
        if self.repeat_scope not in REPEAT_SCOPES:
            raise UsageError(
                f"repeat_scope is {self.repeat_scope!r}, "
                f"but must be one of {', '.join(REPEAT_SCOPES)}"
            )
        self._check_together()

    def _check_together(self) -> None:
        if self.min_blank_length > self.max_blank_length:
            raise UsageError(
                f"min_blank_length is {self.min_blank_length}, "
                f"but max_blank_length only {self.max_blank_length}"
            )
        asks_for_drawing = [
            name
            for name in ("top_k", "top_p", "samples")
            if getattr(self, name) != getattr(Sampling, name)
        ]
        if self.beams > 1 and (asks_for_drawing or self.temperature):
            name = "temperature" if self.temperature else asks_for_drawing[0]
            raise UsageError(
                f"beams is {self.beams}, but beam search draws nothing: "
                f"leave {name} = {getattr(self, name)} out"
            )
        if self.temperature == 0.0 and asks_for_drawing:
            name = asks_for_drawing[0]
            raise UsageError(
                f"temperature is 0, which draws nothing: leave {name} = {getattr(self, name)} out, "
                "or give a temperature above 0"
            )

    @property
    def used_temperature(self) -> float:
        """The temperature, where None is resolved from the other fields."""
        if self.temperature is not None:
            return self.temperature
        return 1.0 if self.top_k or self.top_p < 1.0 or self.samples > 1 else 0.0


def _check_integer(
    name: str, value: Any, minimum: int, expected: str, maximum: int = 2**31 - 1
) -> None:
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if not is_integer or not minimum <= value <= maximum:
        raise UsageError(f"{name} is {value!r}, but must be {expected}")


def _check_number(name: str, value: Any, minimum: float, maximum: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not minimum <= value <= maximum:  # also refuses NaN
        raise UsageError(
            f"{name} is {value!r}, but must be a number from {minimum:g} to {maximum:g}"
        )
