"""The inputs of multiple choice, one text at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def choice_row(tokenizer: Any, ids: Tensor, seen: Tensor, choices: Sequence[str]) -> dict[str, Any]:
    """One text, with its choices behind it as blanks that don't see each other.

    Arguments:
        tokenizer: names the special tokens and encodes the choices.
        ids: of the text, with a mask, [L].
        seen: which of them are no padding.
        choices: the texts to choose from.

    Raises:
        ValueError: there is no mask.
    """
    masks = torch.isin(ids, torch.tensor(tokenizer.mask_token_ids, device=ids.device))
    if not masks.any():
        raise ValueError("a text has no mask token to be replaced by a choice")
    mask_position = int(masks.long().argmax())
    encoded = [tokenizer(choice, add_special_tokens=False)["input_ids"] for choice in choices]
    tokens, positions, blocks = [ids], [torch.arange(len(ids))], [torch.zeros(len(ids))]
    parts, indices, end = [torch.ones(len(ids), len(ids))], [], len(ids)
    for choice in encoded:
        read = ids.new_tensor([tokenizer.sop_token_id, *choice[:-1]])
        tokens.append(read)
        positions.append(torch.full((len(read),), mask_position))
        blocks.append(torch.arange(1, len(read) + 1))
        parts.append(torch.ones(len(read), len(read)).tril())
        indices.append(torch.arange(end, end + len(read), device=ids.device))
        end += len(read)
    visible = torch.block_diag(*parts).to(ids.device)
    visible[:, : len(ids)] = seen
    return {
        "input_ids": torch.cat(tokens),
        "position_ids": torch.stack([torch.cat(positions), torch.cat(blocks).long()]).to(ids),
        "attention_mask": visible.long(),
        "choice_ids": [ids.new_tensor(choice) for choice in encoded],
        "choice_indices": indices,
    }
