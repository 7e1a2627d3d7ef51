"""ChatGLM-6B in PyTorch: the second opinion that our numbers are compared with.

Written like the published code where that matters for numbers: layer-scaled scores with a fill of
-10000, frequencies rounded to float16, residuals from the normalised input of each half.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from glm_jax.parity.torch_reference import MLP, TorchOutputs, visibility

RESIDUAL_SCALE = math.sqrt(2 * 28)
MASKED_SCORE = -10000.0


def rotated(
    vectors: Float[Tensor, "B H L K"], position_ids: Int[Tensor, "B S L"]
) -> Float[Tensor, "B H L K"]:
    """Vectors rotated by S kinds of positions, each for its part of the vector."""
    parts = vectors.chunk(position_ids.shape[1], dim=-1)
    size = parts[0].shape[-1]
    frequencies = 1.0 / 10000 ** (torch.arange(0, size, 2).float() / size)
    frequencies = frequencies.half().to(vectors.dtype)
    turned = []
    for part, positions in zip(parts, position_ids.unbind(1), strict=True):
        angles = positions[:, None, :, None].to(vectors.dtype) * frequencies
        angles = torch.cat([angles, angles], dim=-1)  # [B, 1, L, size]
        first, second = part.chunk(2, dim=-1)
        turned.append(part * angles.cos() + torch.cat([-second, first], dim=-1) * angles.sin())
    return torch.cat(turned, dim=-1)


class ChatGLMAttention(nn.Module):
    """Self-attention with rotary positions; query, key and value are thirds of one map."""

    def __init__(self, hidden_size: int, num_attention_heads: int, layer: int):
        super().__init__()
        self.num_attention_heads, self.layer_factor = num_attention_heads, layer + 1.0
        self.query_key_value = nn.Linear(hidden_size, 3 * hidden_size)
        self.dense = nn.Linear(hidden_size, hidden_size)

    def forward(
        self,
        hidden: Float[Tensor, "B L D"],
        position_ids: Int[Tensor, "B S L"],
        hides: Bool[Tensor, "B 1 L L"],
        prefix: Float[Tensor, "P 2*D"] | None,
    ) -> Float[Tensor, "B L D"]:
        query, key, value = (
            third.unflatten(-1, (self.num_attention_heads, -1)).transpose(1, 2)
            for third in self.query_key_value(hidden).chunk(3, dim=-1)
        )  # [B, L, 3 D] -> 3 x [B, H, L, K]
        query, key = rotated(query, position_ids), rotated(key, position_ids)
        if prefix is not None:
            pair = prefix.unflatten(-1, (2, self.num_attention_heads, -1)).permute(1, 2, 0, 3)
            own = pair[:, None].expand(-1, len(hidden), -1, -1, -1)  # [2, B, H, P, K]
            key, value = torch.cat([own[0], key], dim=2), torch.cat([own[1], value], dim=2)
            hides = nn.functional.pad(hides, (len(prefix), 0), value=False)
        query = query / (math.sqrt(query.shape[-1]) * self.layer_factor)
        scores = (query @ key.transpose(2, 3)).masked_fill(hides, MASKED_SCORE)
        context = (scores * self.layer_factor).softmax(dim=-1) @ value
        return self.dense(context.transpose(1, 2).flatten(2))  # [B, H, L, K] -> [B, L, D]


class ChatGLMLayer(nn.Module):
    """One block: what is added to is the normalised input of each half."""

    def __init__(self, hidden_size: int, inner_size: int, heads: int, epsilon: float, layer: int):
        super().__init__()
        self.input_layernorm = nn.LayerNorm(hidden_size, epsilon)
        self.attention = ChatGLMAttention(hidden_size, heads, layer)
        self.post_attention_layernorm = nn.LayerNorm(hidden_size, epsilon)
        self.mlp = MLP(hidden_size, inner_size)

    def forward(
        self,
        hidden: Float[Tensor, "B L D"],
        position_ids: Int[Tensor, "B S L"],
        hides: Bool[Tensor, "B 1 L L"],
        prefix: Float[Tensor, "P 2*D"] | None,
    ) -> Float[Tensor, "B L D"]:
        normalized = self.input_layernorm(hidden)
        attended = self.attention(normalized, position_ids, hides, prefix)
        hidden = normalized * RESIDUAL_SCALE + attended
        normalized = self.post_attention_layernorm(hidden)
        return normalized * RESIDUAL_SCALE + self.mlp(normalized)


class TorchChatGLM(nn.Module):
    """The network, with the names that conversions use.

    Args:
      vocab_size, num_layers, hidden_size, num_attention_heads: V, N, D and H.
      inner_size: width of the MLP.
      layernorm_epsilon: added to the variance in every LayerNorm.
      two_dimensional: whether positions inside the blank rotate half of each head.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        num_layers: int,
        hidden_size: int,
        num_attention_heads: int,
        inner_size: int,
        layernorm_epsilon: float,
        two_dimensional: bool,
    ):
        super().__init__()
        self.two_dimensional = two_dimensional
        self.word_embeddings = nn.Embedding(vocab_size, hidden_size)
        layers = (
            ChatGLMLayer(hidden_size, inner_size, num_attention_heads, layernorm_epsilon, layer)
            for layer in range(num_layers)
        )
        self.transformer = nn.ModuleDict(
            {
                "layers": nn.ModuleList(layers),
                "final_layernorm": nn.LayerNorm(hidden_size, layernorm_epsilon),
            }
        )

    def forward(
        self,
        tokens: Int[Tensor, "B L"],
        position_ids: Int[Tensor, "B 2 L"] | Int[Tensor, "B L"],
        attention_mask: Int[Tensor, "..."],
        prefixes: list[Float[Tensor, "P 2*D"] | None],
    ) -> TorchOutputs:
        """Runs the network and keeps every station.

        Args:
          tokens, position_ids, attention_mask: as of `TorchGLM.forward`.
          prefixes: of every layer: keys, then values, of the positions before the sequence.
        """
        positions = position_ids[:, None] if position_ids.ndim == 2 else position_ids
        positions = positions if self.two_dimensional else positions[:, :1]
        hides = visibility(attention_mask, tokens.shape[1]) == 0
        hidden_states = [self.word_embeddings(tokens)]
        layers: nn.Module = self.transformer["layers"]
        for layer, prefix in zip(layers.children(), prefixes, strict=True):
            hidden_states.append(layer(hidden_states[-1], positions, hides, prefix))
        final = self.transformer["final_layernorm"](hidden_states[-1])
        logits = nn.functional.linear(final, self.word_embeddings.weight)
        return TorchOutputs(tuple(hidden_states), final, logits)


def prefixes_of(state: dict[str, Tensor], num_layers: int) -> list[Float[Tensor, "P 2*D"] | None]:
    """Takes every layer's prefix out of a state dict, by the names that conversions use."""
    encoder, layer_name = "transformer.prefix_encoder", "transformer.layers.{}.attention.prefix"
    if f"{encoder}.embedding.weight" in state:
        hidden = nn.functional.linear(
            state.pop(f"{encoder}.embedding.weight"),
            state.pop(f"{encoder}.trans.0.weight"),
            state.pop(f"{encoder}.trans.0.bias"),
        ).tanh()
        return [
            nn.functional.linear(
                hidden,
                state.pop(f"{layer_name.format(layer)}_projection.weight"),
                state.pop(f"{layer_name.format(layer)}_projection.bias"),
            )
            for layer in range(num_layers)
        ]
    return [state.pop(f"{layer_name.format(layer)}.weight", None) for layer in range(num_layers)]
