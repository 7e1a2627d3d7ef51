"""GLM in PyTorch: the second opinion that our numbers are compared with.

Only `glm_jax.parity` imports torch, and only to run this. Written for reading, not for speed:
float32, no dropout, no cache. Modules are named so that a state dict has the original's names.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

# What the original gives hidden scores: the lowest fp16 number.
MASKED_SCORE = -65504.0


@dataclasses.dataclass(frozen=True)
class TorchOutputs:
    """Every station of one forward pass.

    Attributes:
      hidden_states: the embedding output and then the output of every layer, N + 1 in all; the last
        one is still without the final LayerNorm.
      final_hidden: output of the final LayerNorm.
      logits: its products with the word embedding.
    """

    hidden_states: tuple[Float[Tensor, "B L D"], ...]
    final_hidden: Float[Tensor, "B L D"]
    logits: Float[Tensor, "B L V"]


def visibility(attention_mask: Int[Tensor, "..."], length: int) -> Float[Tensor, "B 1 L L"]:
    """1 where a position (third axis) sees another (fourth axis), else 0.

    Args:
      attention_mask: prefix lengths, [1] for all examples or [B], where every position sees the
        prefix and what is not behind itself; or the finished 0/1 mask, [B, 1, L, L] or
        [1, 1, L, L].
      length: L.
    """
    if attention_mask.ndim == 4:
        return attention_mask.float()
    positions = torch.arange(length, device=attention_mask.device)
    in_prefix = positions < attention_mask[:, None]  # [B] -> [B, L]
    causal = positions <= positions[:, None]  # [L, L]
    return (causal | in_prefix[:, None]).float()[:, None]


class Attention(nn.Module):
    """Multi-head self-attention; query, key and value are the thirds of one linear map."""

    def __init__(self, hidden_size: int, num_attention_heads: int):
        super().__init__()
        self.num_attention_heads = num_attention_heads
        self.query_key_value = nn.Linear(hidden_size, 3 * hidden_size)
        self.dense = nn.Linear(hidden_size, hidden_size)

    def forward(
        self, hidden: Float[Tensor, "B L D"], visible: Float[Tensor, "B 1 L L"]
    ) -> Float[Tensor, "B L D"]:
        query, key, value = (
            third.unflatten(-1, (self.num_attention_heads, -1)).transpose(1, 2)
            for third in self.query_key_value(hidden).chunk(3, dim=-1)
        )  # [B, L, 3 D] -> 3 x [B, H, L, K]
        scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])
        # A row that sees nothing gets equal scores everywhere, and so looks at all keys alike.
        scores = scores * visible + MASKED_SCORE * (1 - visible)
        context = scores.softmax(dim=-1) @ value
        return self.dense(context.transpose(1, 2).flatten(2))  # [B, H, L, K] -> [B, L, D]


class MLP(nn.Module):
    """Two linear maps around a tanh-approximated GELU."""

    def __init__(self, hidden_size: int, inner_size: int):
        super().__init__()
        self.dense_h_to_4h = nn.Linear(hidden_size, inner_size)
        self.dense_4h_to_h = nn.Linear(inner_size, hidden_size)

    def forward(self, hidden: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        return self.dense_4h_to_h(functional.gelu(self.dense_h_to_4h(hidden), approximate="tanh"))


class Layer(nn.Module):
    """One pre-LayerNorm transformer block."""

    def __init__(self, hidden_size: int, num_attention_heads: int, layernorm_epsilon: float):
        super().__init__()
        self.input_layernorm = nn.LayerNorm(hidden_size, layernorm_epsilon)
        self.attention = Attention(hidden_size, num_attention_heads)
        self.post_attention_layernorm = nn.LayerNorm(hidden_size, layernorm_epsilon)
        self.mlp = MLP(hidden_size, 4 * hidden_size)

    def forward(
        self, hidden: Float[Tensor, "B L D"], visible: Float[Tensor, "B 1 L L"]
    ) -> Float[Tensor, "B L D"]:
        hidden = hidden + self.attention(self.input_layernorm(hidden), visible)
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class Transformer(nn.Module):
    """Positions, the layers and the final LayerNorm; everything but the word embedding."""

    def __init__(
        self,
        *,
        num_layers: int,
        hidden_size: int,
        num_attention_heads: int,
        position_rows: int,
        block_position_encoding: bool,
        layernorm_epsilon: float,
    ):
        super().__init__()
        self.position_embeddings = nn.Embedding(position_rows, hidden_size)
        self.block_position_embeddings = (
            nn.Embedding(position_rows, hidden_size) if block_position_encoding else None
        )
        self.layers = nn.ModuleList(
            Layer(hidden_size, num_attention_heads, layernorm_epsilon) for _ in range(num_layers)
        )
        self.final_layernorm = nn.LayerNorm(hidden_size, layernorm_epsilon)

    def add_positions(
        self,
        embeddings: Float[Tensor, "B L D"],
        position_ids: Int[Tensor, "B 2 L"] | Int[Tensor, "B L"],
    ) -> Float[Tensor, "B L D"]:
        """The input of the first layer; position ids as in `TorchGLM.forward`."""
        positions = position_ids if position_ids.ndim == 2 else position_ids[:, 0]
        hidden = embeddings + self.position_embeddings(positions)
        if self.block_position_embeddings is None:
            return hidden
        return hidden + self.block_position_embeddings(position_ids[:, 1])

    def forward(
        self, hidden: Float[Tensor, "B L D"], visible: Float[Tensor, "B 1 L L"]
    ) -> tuple[Float[Tensor, "B L D"], ...]:
        """The given embeddings and the output of every layer, the last one not normalised."""
        hidden_states = [hidden]
        for layer in self.layers:
            hidden_states.append(layer(hidden_states[-1], visible))
        return tuple(hidden_states)


class TorchGLM(nn.Module):
    """The network of Du et al. (2022), section 2, with the original's parameter names.

    Made under `torch.device("meta")` and filled by `load_state_dict(state, assign=True)`, it takes
    no memory other than the state dict's.

    Args:
      vocab_size: rows of the word embedding, V.
      num_layers: N.
      hidden_size: D; the MLP is 4 D wide.
      num_attention_heads: H.
      position_rows: rows of the position table, and of the block position table where there is one.
      block_position_encoding: False for one-dimensional positions, without a block position table.
      layernorm_epsilon: added to the variance in every LayerNorm.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        num_layers: int,
        hidden_size: int,
        num_attention_heads: int,
        position_rows: int,
        block_position_encoding: bool = True,
        layernorm_epsilon: float = 1e-5,
    ):
        super().__init__()
        self.word_embeddings = nn.Embedding(vocab_size, hidden_size)
        self.transformer = Transformer(
            num_layers=num_layers,
            hidden_size=hidden_size,
            num_attention_heads=num_attention_heads,
            position_rows=position_rows,
            block_position_encoding=block_position_encoding,
            layernorm_epsilon=layernorm_epsilon,
        )

    def forward(
        self,
        tokens: Int[Tensor, "B L"],
        position_ids: Int[Tensor, "B 2 L"] | Int[Tensor, "B L"],
        attention_mask: Int[Tensor, "..."],
    ) -> TorchOutputs:
        """Runs the network and keeps every station.

        Args:
          tokens: Part A followed by Part B.
          position_ids: row 0 the position in the text, row 1 the position inside the blank.
            Networks with one-dimensional positions read row 0, or take [B, L].
          attention_mask: as in `visibility`.
        """
        embedded = self.transformer.add_positions(self.word_embeddings(tokens), position_ids)
        visible = visibility(attention_mask, tokens.shape[1])
        hidden_states = self.transformer(embedded, visible)
        final = self.transformer.final_layernorm(hidden_states[-1])
        logits = functional.linear(final, self.word_embeddings.weight)
        return TorchOutputs(hidden_states, final, logits)
