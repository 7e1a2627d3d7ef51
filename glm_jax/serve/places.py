"""The text of tokens where they stand, beside the tokens before them.

A token may be a part of a character, and may read differently at the beginning of a text than in
its middle (SentencePiece drops a space there), so no token is decoded alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from glm_jax.generate.growing_text import INCOMPLETE, shared_length
from glm_jax.tokenizer import Tokenizer

# So many tokens before a place decide how it reads; more only take time.
CONTEXT = 16


def text_in_place(tokenizer: Tokenizer, before: Sequence[int], ids: Sequence[int]) -> str:
    """What tokens add to the text of those before them."""
    context = list(before[-CONTEXT:])
    whole = tokenizer.decode([*context, *ids])
    return whole[shared_length(tokenizer.decode(context), whole) :]


def texts_in_place(tokenizer: Tokenizer, before: Sequence[int], ids: Sequence[int]) -> list[str]:
    """What each of some tokens adds; a character of several tokens comes with the last of them."""
    context = list(before[-CONTEXT:])
    whole = tokenizer.decode([*context, *ids])
    ends = [
        shared_length(tokenizer.decode([*context, *ids[:count]]), whole)
        for count in range(len(ids))
    ]
    ends.append(len(whole))
    for place in range(1, len(ends)):
        ends[place] = max(ends[place - 1], ends[place])
    return [whole[begin:end] for begin, end in itertools.pairwise(ends)]


def without_incomplete(text: str) -> str:
    """A text that still grows, without the beginning of a character at its end."""
    return text.rstrip(INCOMPLETE)
