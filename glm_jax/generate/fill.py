"""Filling the blanks of texts, left to right, each with the most probable tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from jaxtyping import PyTree

from glm_jax.errors import UsageError
from glm_jax.generate.greedy import Prompt, fill_prompts
from glm_jax.model import GLM
from glm_jax.tokenizer import Tokenizer

MASK_NAMES = ("MASK", "sMASK", "gMASK")
TEXTS_AT_ONCE = 16


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How blanks are filled: greedily.

    Attributes:
      max_blank_length: most tokens a blank may take; a model with fewer positions allows fewer.

    Raises:
      UsageError: it is not a positive whole number.
    """

    max_blank_length: int = 64

    def __post_init__(self) -> None:
        length = self.max_blank_length
        if not isinstance(length, int) or isinstance(length, bool) or length < 1:
            raise UsageError(f"max_blank_length is {length!r}, but must be a positive whole number")


@dataclasses.dataclass(frozen=True)
class Blank:
    """What the model put in one blank: ids without the tokens that begin and end it."""

    ids: list[int]
    text: str


@dataclasses.dataclass(frozen=True)
class FilledText:
    """The whole text with its blanks replaced, and every blank in the order of the text."""

    text: str
    blanks: list[Blank]


def fill(
    model: GLM,
    params: PyTree,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    sampling: Sampling | None = None,
) -> list[FilledText]:
    """Fills every blank of every text (contract C6).

    A text without a blank is continued at its end.

    Args:
      model: the network.
      params: its parameters.
      tokenizer: the one that the model was trained with.
      texts: each with any number of "[MASK]", "[sMASK]" and "[gMASK]".
      sampling: how to fill; the default takes at most 64 tokens a blank.

    Raises:
      UsageError: a text has more tokens than the model has positions, or the tokenizer has more
        tokens than the model.
    """
    if tokenizer.vocab_size > model.config.vocab_size:
        raise UsageError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, "
            f"but the model's vocabulary only {model.config.vocab_size}"
        )
    encoded = [_encode_with_blank(tokenizer, text) for text in texts]
    filled = fill_tokens(model, params, encoded, tokenizer.special, sampling or Sampling())
    masks = _mask_ids(tokenizer.special)
    return [
        FilledText(
            tokenizer.decode(_replace_masks(ids, masks, blanks)),
            [Blank(blank, tokenizer.decode(blank)) for blank in blanks],
        )
        for ids, blanks in zip(encoded, filled, strict=True)
    ]


def fill_tokens(
    model: GLM,
    params: PyTree,
    texts: Sequence[Sequence[int]],
    special: Mapping[str, int],
    sampling: Sampling,
) -> list[list[list[int]]]:
    """Fills the blanks of texts given as ids.

    Args:
      model: the network.
      params: its parameters.
      texts: ids of every text with its mask tokens, without the tokens around it.
      special: ids of the special tokens by the original's names.
      sampling: how to fill.

    Returns:
      For every text, for every mask from left to right, the ids put there.

    Raises:
      UsageError: a text has more tokens than the model has positions.
    """
    positions = model.config.num_positions
    masks = _mask_ids(special)
    prompts = [make_prompt(ids, special, masks) for ids in texts]
    for prompt in prompts:
        if len(prompt.ids) > positions:
            raise UsageError(
                f"a text has {len(prompt.ids)} tokens with those around it, "
                f"but the model has positions only for {positions}"
            )
    filled: list[list[list[int]]] = []
    for start in range(0, len(prompts), TEXTS_AT_ONCE):
        filled += fill_prompts(
            model,
            params,
            prompts[start : start + TEXTS_AT_ONCE],
            begin=special["sop"],
            ends=(special["eop"], special["eos"]),
            max_blank_length=min(sampling.max_blank_length, model.config.max_sequence_length),
        )
    return filled


def make_prompt(ids: Sequence[int], special: Mapping[str, int], masks: frozenset[int]) -> Prompt:
    """Part A of a text: `[CLS] text eos`, without eos where the text ends in a generation mask.

    Source: original code.
    """
    continued = bool(ids) and ids[-1] == special.get("gMASK")
    prompt = [special["ENC"], *ids, *([] if continued else [special["eos"]])]
    return Prompt(prompt, [place for place, token in enumerate(prompt) if token in masks])


def _mask_ids(special: Mapping[str, int]) -> frozenset[int]:
    return frozenset(special[name] for name in MASK_NAMES if name in special)


def _encode_with_blank(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text; where it has no blank, with the mask that asks for its continuation."""
    special = tokenizer.special
    ids = tokenizer.encode(text)
    if not _mask_ids(special).isdisjoint(ids):
        return ids
    # A mask takes no whitespace before it.
    return [*tokenizer.encode(text.rstrip()), special.get("gMASK", special["MASK"])]


def _replace_masks(
    ids: Sequence[int], masks: frozenset[int], blanks: Sequence[Sequence[int]]
) -> list[int]:
    """The ids of a text with every mask replaced by its blank."""
    remaining = iter(blanks)
    return [new for old in ids for new in (next(remaining) if old in masks else [old])]
