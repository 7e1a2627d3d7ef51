"""What GLM reads besides ids: positions, what each position sees, and earlier keys and values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .network_glm import prefix_mask

try:
    from transformers.cache_utils import DynamicCache  # pyright: ignore[reportAssignmentType]
except ImportError:  # until 4.35

    class DynamicCache:
        """Keys and values of every layer, as later versions of transformers have them."""

        def __init__(self) -> None:
            self._layers: dict[int, tuple[Tensor, Tensor]] = {}

        def update(self, key: Tensor, value: Tensor, layer: int) -> tuple[Tensor, Tensor]:
            """Adds keys and values [B, H, L, K] of a layer, and returns all of them."""
            if layer in self._layers:
                old_key, old_value = self._layers[layer]
                key, value = torch.cat([old_key, key], 2), torch.cat([old_value, value], 2)
            self._layers[layer] = key, value
            return key, value

        def get_seq_length(self) -> int:
            """The number of positions held."""
            return self._layers[0][0].shape[2] if self._layers else 0

        def reorder_cache(self, beam_idx: Tensor) -> None:
            """Puts the beams into a new order."""
            self._layers = {
                layer: (key.index_select(0, beam_idx), value.index_select(0, beam_idx))
                for layer, (key, value) in self._layers.items()
            }


def cached_length(cache: Any) -> int:
    """The number of positions in a cache, which may be None."""
    return 0 if cache is None else int(cache.get_seq_length())


def positions_of(input_ids: Tensor, config: Any, attention_mask: Tensor | None = None) -> Tensor:
    """Position ids [B, 2, L] of ids: every <|startofpiece|> starts the blank of the next mask.

    Arguments:
        input_ids: complete sequences [B, L], without those in a cache.
        config: names the tokens.
        attention_mask: where it has two axes, 0 at padding, which takes no position.
    """
    rows, length = input_ids.shape
    index = torch.arange(length, device=input_ids.device).expand(rows, length)
    text, starts = index, _starts(input_ids, config)
    if attention_mask is not None and _is_padding(attention_mask, input_ids):
        text = (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)
    blank = starts.long().cumsum(dim=1)
    masks = torch.zeros_like(starts)
    for token in config.mask_token_ids or ():
        masks |= (input_ids == token) & (blank == 0)
    # The n-th blank has the position of the n-th mask; the first, where there are fewer.
    found = torch.searchsorted(masks.long().cumsum(dim=1), blank.clamp(min=1))
    first = found.where(blank <= 1, torch.zeros_like(found)).amax(dim=1, keepdim=True)
    found = found.where(found < length, first).clamp(max=length - 1)
    last_start = torch.cummax(index.where(starts, torch.full_like(index, -1)), dim=1).values
    inside = blank > 0
    return torch.stack(
        [
            text.gather(1, found).where(inside, text),
            (index - last_start + 1).where(inside, torch.zeros_like(index)),
        ],
        dim=1,
    )


def visibility_of(
    input_ids: Tensor, config: Any, attention_mask: Tensor | None, length: int, past: int
) -> Tensor:
    """What each position sees, [B or 1, 1, length, past + length], true where it does.

    Arguments:
        input_ids: [B, length].
        config: names the tokens.
        attention_mask: in one of the forms that `GLMModel.forward` takes.
        length: number of positions, after `past` ones in a cache.
    """
    if attention_mask is not None and attention_mask.ndim > 2:
        mask = attention_mask if attention_mask.ndim == 4 else attention_mask[:, None]
        return mask[..., -length:, : past + length] > 0
    padded = _is_padding(attention_mask, input_ids)
    if attention_mask is None or padded:
        starts = _starts(input_ids, config)
        found = starts.long().argmax(dim=1)
        # Without a blank all is Part A; what follows earlier positions is a part of a blank.
        others = torch.full_like(found, 0 if past else length)
        visible = prefix_mask(found.where(starts.any(dim=1), others), length, past)
        if past:
            visible = visible | (torch.arange(past + length, device=visible.device) < past)
    else:
        visible = prefix_mask(attention_mask.reshape(-1), length, past)
    if attention_mask is not None and padded and attention_mask.shape[1] in (length, past + length):
        padding = attention_mask.new_ones(len(input_ids), past + length)
        padding[:, -attention_mask.shape[1] :] = attention_mask
        visible = visible & (padding > 0)[:, None, None]
    return visible


def pooled(hidden: Tensor, attention_mask: Tensor | None, pool_token: str) -> Tensor:
    """The hidden state [B, D] that a sequence is classified by, of those [B, L, D] of all tokens.

    Arguments:
        attention_mask: which positions are no padding, or the lengths of the sequences.
        pool_token: "cls" for the first token, "pad" for the last one.
    """
    if pool_token not in ("cls", "pad"):
        raise ValueError(f"pool_token is {pool_token!r}; expected cls or pad")
    if pool_token == "cls" or attention_mask is None:
        return hidden[:, 0 if pool_token == "cls" else -1]
    lengths = attention_mask.sum(dim=-1) if attention_mask.ndim == 2 else attention_mask
    rows = torch.arange(len(hidden), device=hidden.device)
    return hidden[rows, lengths.expand(len(hidden)) - 1]


def _starts(input_ids: Tensor, config: Any) -> Tensor:
    if config.sop_token_id is None:
        return torch.zeros_like(input_ids, dtype=torch.bool)
    return input_ids == config.sop_token_id


def _is_padding(attention_mask: Tensor | None, input_ids: Tensor) -> bool:
    """Whether a mask says which positions are no padding, and is not the length of Part A."""
    return (
        attention_mask is not None
        and attention_mask.ndim == 2
        and (attention_mask.shape[1] > 1 or input_ids.shape[1] == 1)
    )
