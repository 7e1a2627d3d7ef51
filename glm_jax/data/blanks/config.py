"""Which blanks a run trains on: the three objectives of GLM and their settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from glm_jax import validation
from glm_jax.errors import UsageError

SPAN_COST = 2  # positions that a span adds to the sequence: its mask and its sop


class Objective(IntEnum):
    """The values of a batch's `objective` (contract C1)."""

    TOKEN = 0
    SENTENCE = 1
    DOCUMENT = 2
    OTHER = 3  # examples that are not drawn here, such as supervised ones

    @property
    def label(self) -> str:
        """Its name in reports, which is also the field of its proportion in `BlankConfig`."""
        return self.name.lower()


MIXED_OBJECTIVES = tuple(kind for kind in Objective if kind != Objective.OTHER)


@dataclass(frozen=True)
class BlankConfig:
    """How blanks are sampled (GLM paper, sections 2.1 and 2.2; defaults of the original code).

    The first fields, one for each objective, are the proportions in which examples are mixed;
    they need not add up to 1. A `single_span_probability` of all examples are token examples with
    one span only, whatever the other proportions; without token examples, they are ordinary
    examples of the first objective that is mixed in.

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
    random_position: bool = False  # positions start at a random index, within the sequence length
    masked_lm: bool = False  # token examples predict masked tokens in place, without Part B
    context_mask_ratio: float = 0.0  # part of the text hidden as dBLOCK in addition to the blanks
    context_mask_range: int = 3  # how far from a blank, tokens

    def __post_init__(self) -> None:
        names = [kind.label for kind in MIXED_OBJECTIVES]
        validation.non_negative("blanks", self, *names)
        if not any(getattr(self, name) for name in names):
            raise UsageError(
                f"blanks.{', blanks.'.join(names)} are all 0; expected a proportion above 0 for at "
                "least one objective"
            )
        validation.fraction(
            "blanks",
            self,
            "minimum_document_ratio",
            "unidirectional_probability",
            "block_mask_probability",
            "single_span_probability",
            "short_sequence_probability",
            "context_mask_ratio",
        )
        validation.fraction(
            "blanks", self, "mask_ratio", "sentence_mask_ratio", zero=False, one=False
        )
        validation.positive("blanks", self, "mean_span_length")
        validation.at_least("blanks", self, 2, "max_span_length")  # exclusive
        validation.at_least("blanks", self, 1, "context_mask_range")

    @property
    def proportions(self) -> Mapping[Objective, float]:
        """The proportion of each objective's examples, in order; they add up to 1."""
        weights = {kind: getattr(self, kind.label) for kind in MIXED_OBJECTIVES}
        total = sum(weights.values())
        return {kind: weight / total for kind, weight in weights.items()}

    @property
    def first_objective(self) -> Objective:
        """The first objective that is mixed in, in the order of `Objective`."""
        return next(kind for kind, share in self.proportions.items() if share > 0)


def num_sentinels(special: Mapping[str, int]) -> int:
    """How many pairs MASK1 sop1, MASK2 sop2, ... there are."""
    count = 0
    while f"MASK{count + 1}" in special and f"sop{count + 1}" in special:
        count += 1
    return count
