"""Part A of a text whose blanks are to be filled."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from glm_jax.errors import UsageError
from glm_jax.model.chatglm_inputs import SpecialIds, context_length, mask_position
from glm_jax.tokenizer import Tokenizer

MASK_NAMES = ("MASK", "sMASK", "gMASK")


@dataclasses.dataclass(frozen=True)
class Prompt:
    """Part A of one text, and what is already written of Part B.

    Attributes:
      ids: Part A.
      masks: the positions of its masks in ascending order.
      written: the first tokens of the first blank, after its start token; none by default.
      position_step: added to the position of a blank for every token in it: 1 where positions count
        on from the first mask's, as one-dimensional ones of ChatGLM, else 0.
    """

    ids: list[int]
    masks: list[int]
    written: list[int] = dataclasses.field(default_factory=list)
    position_step: int = 0


def make_prompt(ids: Sequence[int], special: Mapping[str, int]) -> Prompt:
    """Part A of a text: `[CLS] text eos`, without eos where the text ends in a generation mask.

    Args:
      ids: the text with its mask tokens, without the tokens around it.
      special: ids of the special tokens by the original's names.

    Source: original code.
    """
    masks = mask_ids(special)
    continued = bool(ids) and ids[-1] == special.get("gMASK")
    prompt = [special["ENC"], *ids, *([] if continued else [special["eos"]])]
    return Prompt(prompt, [index for index, token in enumerate(prompt) if token in masks])


def bare_prompt(ids: Sequence[int], special: Mapping[str, int]) -> Prompt:
    """Part A of a text for ChatGLM, which has no tokens around it."""
    masks = mask_ids(special)
    return Prompt(list(ids), [index for index, token in enumerate(ids) if token in masks])


def chat_prompt(
    ids: Sequence[int], special: Mapping[str, int], *, two_dimensional: bool = True
) -> Prompt:
    """The prompt of ChatGLM's ids, which end in [gMASK] sop as its tokenizer makes them.

    What follows the first sop, if anything, is written already.

    Args:
      ids: with a mask and sop.
      special: ids of the special tokens by the original's names.
      two_dimensional: whether the network has positions inside the blank
        (`config.block_position_encoding`).

    Raises:
      UsageError: there is no mask or no sop.
    """
    names = SpecialIds.of(special)
    context, mask = context_length(ids, names), mask_position(ids, names)
    written = list(ids[context + 1 :])
    if two_dimensional or names.generation_mask not in ids:
        return Prompt(list(ids[:context]), [mask], written)
    return Prompt(list(ids[:context]), [context], written, position_step=1)


def full_length(prompt: Prompt) -> int:
    """All tokens of a prompt with one blank, its start token included."""
    return len(prompt.ids) + 1 + len(prompt.written)


def mask_ids(special: Mapping[str, int]) -> frozenset[int]:
    """The ids of all mask tokens."""
    return frozenset(special[name] for name in MASK_NAMES if name in special)


def encode_with_blank(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text; where it has no blank, with the mask that asks for its continuation."""
    special = tokenizer.special
    ids = tokenizer.encode(text)
    if not mask_ids(special).isdisjoint(ids):
        return ids
    # A mask takes no whitespace before it.
    return [*tokenizer.encode(text.rstrip()), special.get("gMASK", special["MASK"])]


def stretches(ids: Sequence[int], masks: frozenset[int]) -> Iterator[list[int]]:
    """The ids between masks, one more than there are masks."""
    stretch: list[int] = []
    for token in ids:
        if token in masks:
            yield stretch
            stretch = []
        else:
            stretch.append(token)
    yield stretch


def check_vocabulary(tokenizer: Tokenizer, vocab_size: int) -> None:
    """Refuses a tokenizer that has tokens outside the model's vocabulary.

    Raises:
      UsageError: it has more than `vocab_size`.
    """
    if tokenizer.vocab_size > vocab_size:
        raise UsageError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, "
            f"but the model's vocabulary only {vocab_size}"
        )


def check_positions(prompt: Prompt, num_positions: int) -> None:
    """Refuses a text that is longer than the model's position table.

    Raises:
      UsageError: it has more tokens than `num_positions`.
    """
    length = len(prompt.ids) + len(prompt.written)
    if length > num_positions:
        raise UsageError(
            f"a text has {length} tokens with those around it, "
            f"but the model has positions only for {num_positions}"
        )
