"""The network of GLM (Du et al., 2022, section 2) in PyTorch, without the `transformers` library.

Modules have the names of the original's, and so have their weights.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint


def prefix_mask(prefix_length: Tensor, length: int, past: int = 0) -> Tensor:
    """What each position sees: the prefix, and what is not behind itself.

    Arguments:
        prefix_length: [B], or [1] for all.
        length: number of positions, after `past` earlier ones.

    Returns:
        [B or 1, 1, length, past + length], true where a position sees another.
    """
    keys = torch.arange(past + length, device=prefix_length.device)
    causal = keys <= keys[past:, None]
    return (causal | (keys < prefix_length[:, None])[:, None])[:, None]


class Attention(nn.Module):
    """Multi-head self-attention; query, key and value are the thirds of one linear map."""

    def __init__(self, config: Any, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.num_attention_heads = config.num_attention_heads
        self.dropout = config.attention_dropout_prob
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor, visible: Tensor, blind: Tensor, cache: Any = None) -> Tensor:
        """Attends; the arguments are those of `Layer.forward`."""
        query, key, value = (
            third.unflatten(-1, (self.num_attention_heads, -1)).transpose(1, 2)
            for third in self.query_key_value(hidden).chunk(3, dim=-1)
        )  # [B, L, 3 D] -> 3 x [B, H, L, K]
        if cache is not None:
            key, value = cache.update(key, value, self.layer)
        free = key.shape[2] - visible.shape[3]  # slots of a static cache that are not in use
        visible = functional.pad(visible, (0, free)) if free > 0 else visible
        # The original gives all hidden scores one number, so that a position that sees nothing
        # looks at all others alike; a query of zeros does the same.
        context = functional.scaled_dot_product_attention(
            query.masked_fill(blind, 0.0),
            key,
            value,
            attn_mask=visible | blind,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.dense(context.transpose(1, 2).flatten(2))  # [B, H, L, K] -> [B, L, D]


class MLP(nn.Module):
    """Two linear maps around a GELU, which is approximated by tanh or exact ("none")."""

    def __init__(self, hidden_size: int, inner_size: int, approximation: str = "tanh") -> None:
        super().__init__()
        self.approximation = approximation
        self.dense_h_to_4h = nn.Linear(hidden_size, inner_size)
        self.dense_4h_to_h = nn.Linear(inner_size, hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, L, D] to [B, L, D]."""
        inner = functional.gelu(self.dense_h_to_4h(hidden), approximate=self.approximation)
        return self.dense_4h_to_h(inner)


class Layer(nn.Module):
    """One pre-LayerNorm transformer block."""

    def __init__(self, config: Any, layer: int) -> None:
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size, config.layernorm_epsilon)
        self.attention = Attention(config, layer)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, config.layernorm_epsilon)
        approximation = "none" if config.hidden_act == "gelu" else "tanh"
        self.mlp = MLP(config.hidden_size, 4 * config.hidden_size, approximation)
        self.dropout = nn.Dropout(config.output_dropout_prob)

    def forward(self, hidden: Tensor, visible: Tensor, blind: Tensor, cache: Any = None) -> Tensor:
        """The layer's output [B, L, D].

        Arguments:
            hidden: its input.
            visible: [B or 1, 1, L, M + L], true where a position sees another.
            blind: [B or 1, 1, L, 1], true where it sees none.
            cache: keys and values of M earlier positions, which gets these.
        """
        attended = self.attention(self.input_layernorm(hidden), visible, blind, cache)
        hidden = hidden + self.dropout(attended)
        return hidden + self.dropout(self.mlp(self.post_attention_layernorm(hidden)))


class Transformer(nn.Module):
    """Positions, the layers and the final LayerNorm: everything but the word embedding."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        rows = config.max_sequence_length + config.block_position_encoding
        self.position_embeddings = nn.Embedding(rows, config.hidden_size)
        self.block_position_embeddings = (
            nn.Embedding(rows, config.hidden_size) if config.block_position_encoding else None
        )
        self.layers = nn.ModuleList(Layer(config, layer) for layer in range(config.num_layers))
        self.final_layernorm = nn.LayerNorm(config.hidden_size, config.layernorm_epsilon)
        self.dropout = nn.Dropout(config.embedding_dropout_prob)
        self.gradient_checkpointing = False
        self._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)

    def forward(
        self, embeddings: Tensor, position_ids: Tensor, visible: Tensor, cache: Any = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Runs all layers.

        Arguments:
            embeddings: of the words, [B, L, D].
            position_ids: [B, 2, L], in row 0 the position in the text and in row 1 the one inside
                the blank; [B, L] where positions are one-dimensional.
            visible, cache: as of `Layer.forward`.

        Returns:
            The output of the final LayerNorm; the input of the first layer and the output of each.
        """
        positions = position_ids if position_ids.ndim == 2 else position_ids[:, 0]
        hidden = embeddings + self.position_embeddings(positions)
        if self.block_position_embeddings is not None:
            hidden = hidden + self.block_position_embeddings(position_ids[:, 1])
        hidden = self.dropout(hidden)
        blind = ~visible.any(dim=-1, keepdim=True)
        outputs = [hidden]
        for layer in self.layers:
            if self.gradient_checkpointing and self.training:
                hidden = self._gradient_checkpointing_func(layer.__call__, hidden, visible, blind)
            else:
                hidden = layer(hidden, visible, blind, cache)
            outputs.append(hidden)
        return self.final_layernorm(hidden), tuple(outputs)
