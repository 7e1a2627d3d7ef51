"""Which blanks a run trains on: the three objectives of GLM and their settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from glm_jax.errors import UsageError


class Objective(IntEnum):
    """The values of a batch's `objective` (contract C1)."""

    TOKEN = 0
    SENTENCE = 1
    DOCUMENT = 2
    OTHER = 3


@dataclass(frozen=True)
class BlankConfig:
    """How blanks are cut (GLM paper, sections 2.1 and 2.2; defaults of the original code).

    `token`, `sentence` and `document` are the proportions in which examples are mixed; they need
    not add up to 1. A `single_span_probability` of all examples are token examples with one span
    only, whatever the proportions.
    """

    token: float = 1.0
    sentence: float = 0.0
    document: float = 0.0
    mask_ratio: float = 0.15  # part of the text that token and sentence blanks cover
    mean_span_length: float = 3.0  # Poisson, token objective
    max_span_length: int = 40  # exclusive, as in the original: spans of 1 to 39 tokens
    minimum_document_ratio: float = 0.25  # shortest document blank, as a part of the text
    unidirectional_probability: float = 0.5  # a document blank is the tail of the text
    block_mask_probability: float = 0.0  # a span's input token becomes dBLOCK (token objective)
    single_span_probability: float = 0.0
    task_masks: bool = False  # sentences take sMASK, documents gMASK; otherwise all take MASK

    def __post_init__(self) -> None:
        for name in ("token", "sentence", "document"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UsageError(
                    f"blanks.{name} is {getattr(self, name)}, but a proportion is at least 0."
                )
        if self.token + self.sentence + self.document <= 0:
            raise UsageError(
                "blanks.token, blanks.sentence and blanks.document are all 0, "
                "but at least one objective must be mixed in."
            )
        for name in (
            "minimum_document_ratio",
            "unidirectional_probability",
            "block_mask_probability",
            "single_span_probability",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(
                    f"blanks.{name} is {getattr(self, name)}, but must lie between 0 and 1."
                )
        if not 0 < self.mask_ratio < 1:
            raise UsageError(
                f"blanks.mask_ratio is {self.mask_ratio}, but must lie between 0 and 1, exclusive."
            )
        if not 0 < self.mean_span_length < float("inf"):
            raise UsageError(
                f"blanks.mean_span_length is {self.mean_span_length}, but must be positive."
            )
        if self.max_span_length < 2:
            raise UsageError(
                f"blanks.max_span_length is {self.max_span_length}, but it is exclusive "
                "and so at least 2."
            )

    @property
    def proportions(self) -> tuple[float, float, float]:
        """The proportions of token, sentence and document examples, adding up to 1."""
        total = self.token + self.sentence + self.document
        return self.token / total, self.sentence / total, self.document / total

    def mask_ids(self, special: Mapping[str, int]) -> tuple[int, int, int]:
        """The mask token of each objective, by the value of `Objective`.

        Raises:
          UsageError: task masks are asked of a tokenizer that has none.
        """
        names = ("MASK", "sMASK", "gMASK") if self.task_masks else ("MASK",) * 3
        for name in names:
            if name not in special:
                raise UsageError(
                    f"blanks.task_masks is True, but the tokenizer has no token {name}; "
                    "expected one made with task_mask=True."
                )
        return special[names[0]], special[names[1]], special[names[2]]
