"""Batches as the published ChatGLM tokenizer makes them: truncated, padded on the left.

Source: the published tokenizer on transformers 4.30.2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from glm_jax.errors import UsageError
from glm_jax.tokenizer.chatglm import ChatGLMTokenizer


@dataclasses.dataclass(frozen=True)
class PaddedBatch:
    """Rows of one length.

    Attributes:
      tokens: ids, with pads on the left.
      position_ids: positions and block positions; 0 at pads.
      hidden: True where a row (first L) does not see a column (second L).
    """

    tokens: Int[np.ndarray, "B L"]
    position_ids: Int[np.ndarray, "B 2 L"]
    hidden: Bool[np.ndarray, "B L L"]


def truncated_prompt(
    tokenizer: ChatGLMTokenizer, text: str, answer: str | None, max_length: int
) -> list[int]:
    """`encode_prompt` of at most `max_length` tokens.

    Tokens are removed at the end of the text and of the answer, from the longer of the two at a
    time and from the answer where they are equal.

    Raises:
      UsageError: not even the special tokens fit.
    """
    ids = tokenizer.encode(text)
    others = None if answer is None else tokenizer.encode(answer)
    num_special = 2 if others is None else 3
    if max_length < num_special:
        raise UsageError(f"max_length is {max_length}, but must be {num_special} or more")
    while len(ids) + len(others or ()) + num_special > max_length:
        longer = ids if others is None or len(ids) > len(others) else others
        longer.pop()
    end = [] if others is None else [*others, tokenizer.special["eop"]]
    return [*ids, *tokenizer.prompt_end, *end]


def pad_batch(
    tokenizer: ChatGLMTokenizer,
    rows: Sequence[Sequence[int]],
    *,
    length: int | None = None,
    multiple: int = 1,
) -> PaddedBatch:
    """Rows of ids padded on the left, with their positions and masks.

    Args:
      tokenizer: names the special ids.
      rows: ids, with or without sop.
      length: of the padded rows; None for that of the longest.
      multiple: the length is rounded up to a multiple of this.

    Raises:
      UsageError: a row is longer than `length`.
    """
    longest = max(map(len, rows), default=0)
    wanted = longest if length is None else length
    if longest > wanted:
        raise UsageError(f"a row has {longest} tokens, but the length is only {wanted}")
    width = -(-wanted // multiple) * multiple
    tokens = np.full((len(rows), width), tokenizer.special["pad"], np.int64)
    positions = np.zeros((len(rows), 2, width), np.int64)
    hidden = np.ones((len(rows), width, width), bool)
    for row, ids in enumerate(rows):
        start = width - len(ids)
        tokens[row, start:] = ids
        positions[row, :, start:] = _positions(tokenizer, ids)
        context = _context_length(tokenizer, ids)
        index = np.arange(len(ids))
        visible = (index[None, :] <= index[:, None]) | (index[None, :] < context)
        hidden[row, start:, start:] = ~visible
    return PaddedBatch(tokens, positions, hidden)


def _context_length(tokenizer: ChatGLMTokenizer, ids: Sequence[int]) -> int:
    """Tokens before the first sop, or all."""
    sop = tokenizer.special["sop"]
    return list(ids).index(sop) if sop in ids else len(ids)


def _positions(tokenizer: ChatGLMTokenizer, ids: Sequence[int]) -> Int[np.ndarray, "2 L"]:
    """Positions of one row: from sop on that of [MASK] or, without it, of [gMASK].

    The network itself prefers [gMASK], which matters where a text has a literal [MASK].
    """
    context = _context_length(tokenizer, ids)
    positions = np.arange(len(ids))
    special = tokenizer.special
    mask = special["MASK"] if special["MASK"] in ids else special["gMASK"]
    if mask in ids:
        positions[context:] = list(ids).index(mask)
    blocks = np.maximum(np.arange(len(ids)) - context + 1, 0)
    return np.stack([positions, blocks])
