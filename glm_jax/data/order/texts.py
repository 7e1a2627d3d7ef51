"""The texts of the examples of a batch: each a text, and the objective that it was sized for.

How long a text is depends on its objective, because every span adds positions of its own to the
sequence. So the objective is known before the text is chosen.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Int32, Int64

from glm_jax.data.blanks.config import SPAN_COST, BlankConfig, Objective
from glm_jax.data.blanks.objectives import OBJECTIVES, expected_text_length


class Texts(NamedTuple):
    """One text for each example of a batch; T is the longest length that any objective takes."""

    text: Int32[tf.Tensor, "B T"]  # starts with ENC; what lies beyond `length` means nothing
    length: Int32[tf.Tensor, "B"]
    objective: Int32[tf.Tensor, "B"]
    single_span: Bool[tf.Tensor, "B"]


@runtime_checkable
class TokenSplit(Protocol):
    """The part of a token store's split that texts are read from."""

    @property
    def num_tokens(self) -> int: ...

    def read(
        self, starts: Int64[np.ndarray, "B"], length: int
    ) -> Int32[np.ndarray, "B length"]: ...


class PythonCalls:
    """Python functions within a TensorFlow graph, and what went wrong in them.

    TensorFlow passes on only the text of an exception; the exception itself is kept here.
    """

    def __init__(self) -> None:
        self.failures: list[Exception] = []

    def call(
        self,
        function: Callable,
        arguments: Sequence[tf.Tensor],
        types: Sequence[tf.DType],
    ) -> list[tf.Tensor]:
        """The tensors of `types` that `function` makes of the arguments, all of them as arrays."""

        def guarded(*arrays: np.ndarray):
            try:
                return function(*arrays)
            except Exception as failure:
                self.failures.append(failure)
                raise

        return tf.numpy_function(guarded, arguments, types)


@runtime_checkable
class TextSource(Protocol):
    """Texts by example index: a pure function of the index, whatever else is in the batch."""

    def __call__(self, example: Int64[tf.Tensor, "B"], calls: PythonCalls) -> Texts: ...


def sized_text_length(
    objective: Objective, single_span: bool, config: BlankConfig, sequence_length: int
) -> int:
    """Tokens of text that an example of this kind gets; a single span needs room for itself only.

    Args:
      sequence_length: L, Part A and Part B together.
    """
    if single_span and not config.masked_lm:
        return sequence_length - SPAN_COST
    return expected_text_length(objective, config, sequence_length)


def text_lengths(config: BlankConfig, sequence_length: int) -> list[list[int]]:
    """`sized_text_length` by objective, and by whether the example has a single span.

    0 where texts of an objective are not sized here.
    """
    return [
        [sized_text_length(kind, single, config, sequence_length) for single in (False, True)]
        if kind in OBJECTIVES
        else [0, 0]
        for kind in Objective
    ]
