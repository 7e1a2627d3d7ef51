"""Which blanks a run trains on: the three objectives of GLM and their settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from glm_jax.errors import UsageError

SPAN_COST = 2  # positions that a span adds to the sequence: its mask and its sop


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
    only, whatever the other proportions; without token examples, they are ordinary examples of the
    first objective that is mixed in.

    The fields from `short_sequence_probability` on are the original's smaller settings and the
    ablations of the paper (section 3.4).
    """

    token: float = 1.0
    sentence: float = 0.0
    document: float = 0.0
    mask_ratio: float = 0.15  # part of the text that token blanks cover
    sentence_mask_ratio: float = 0.15  # part of the text that sentence blanks cover
    mean_span_length: float = 3.0  # Poisson, token objective
    max_span_length: int = 40  # exclusive, as in the original: spans of 1 to 39 tokens
    minimum_document_ratio: float = 0.25  # shortest document blank, as a part of the text
    unidirectional_probability: float = 0.5  # a document blank is the tail of the text
    block_mask_probability: float = 0.0  # a span's input token becomes dBLOCK (token objective)
    single_span_probability: float = 0.0
    task_masks: bool = False  # sentences take sMASK, documents gMASK; otherwise all take MASK
    short_sequence_probability: float = 0.0  # an example is a random piece of its text
    shuffle_blocks: bool = True  # False: the blocks of Part B stay in the order of the text
    sentinels: bool = False  # blocks after the first have masks and sops of their own
    block_positions: bool = True  # False: the second row of positions is 1 in all of Part B
    random_position: bool = False  # positions begin anywhere, as far as the sequence is long
    masked_lm: bool = False  # token examples predict masked tokens in place, without Part B
    context_mask_ratio: float = 0.0  # part of the text hidden as dBLOCK beside the blanks
    context_mask_range: int = 3  # how far from a blank, tokens

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
            "short_sequence_probability",
            "context_mask_ratio",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(
                    f"blanks.{name} is {getattr(self, name)}, but must lie between 0 and 1."
                )
        for name in ("mask_ratio", "sentence_mask_ratio"):
            if not 0 < getattr(self, name) < 1:
                raise UsageError(
                    f"blanks.{name} is {getattr(self, name)}, "
                    "but must lie between 0 and 1, exclusive."
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
        if self.context_mask_range < 1:
            raise UsageError(
                f"blanks.context_mask_range is {self.context_mask_range}, but must be at least 1."
            )

    @property
    def proportions(self) -> tuple[float, float, float]:
        """The proportions of token, sentence and document examples, adding up to 1."""
        total = self.token + self.sentence + self.document
        return self.token / total, self.sentence / total, self.document / total

    @property
    def first_objective(self) -> Objective:
        """The first objective that is mixed in, token before sentence before document."""
        return next(
            kind for kind, share in zip(Objective, self.proportions, strict=False) if share > 0
        )

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

    def check_special(self, special: Mapping[str, int]) -> None:
        """Raises UsageError if the tokenizer lacks a token that these blanks need."""
        self.mask_ids(special)
        for name in ("block_mask_probability", "context_mask_ratio"):
            if getattr(self, name) > 0 and "dBLOCK" not in special:
                raise UsageError(
                    f"blanks.{name} is above 0, but the tokenizer has no token dBLOCK; "
                    "expected one made with decoder_mask=True."
                )
        if self.sentinels and not num_sentinels(special):
            raise UsageError(
                "blanks.sentinels is True, but the tokenizer has no token MASK1; "
                "expected one made with sentinels."
            )


def num_sentinels(special: Mapping[str, int]) -> int:
    """How many pairs MASK1 sop1, MASK2 sop2, ... there are."""
    count = 0
    while f"MASK{count + 1}" in special and f"sop{count + 1}" in special:
        count += 1
    return count
