"""GLM in PyTorch: the second opinion that our numbers are compared with.

It is the network that travels with exported Hugging Face folders. Only `glm_jax.parity` imports
torch, and only to run this. Modules are named so that a state dict has the original's names.
"""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from glm_jax.convert.huggingface_code.network_glm import MLP, Transformer, prefix_mask

__all__ = ["MLP", "TorchGLM", "TorchOutputs", "visibility"]


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
    return prefix_mask(attention_mask, length).float()


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
        config = SimpleNamespace(
            num_layers=num_layers,
            hidden_size=hidden_size,
            num_attention_heads=num_attention_heads,
            max_sequence_length=position_rows - block_position_encoding,
            block_position_encoding=block_position_encoding,
            layernorm_epsilon=layernorm_epsilon,
            hidden_act="gelu_pytorch_tanh",
            embedding_dropout_prob=0.0,
            attention_dropout_prob=0.0,
            output_dropout_prob=0.0,
        )
        self.word_embeddings = nn.Embedding(vocab_size, hidden_size)
        self.transformer = Transformer(config)

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
        visible = visibility(attention_mask, tokens.shape[1]) > 0
        embeddings = self.word_embeddings(tokens)
        final, hidden_states = self.transformer(embeddings, position_ids, visible)
        logits = functional.linear(final, self.word_embeddings.weight)
        return TorchOutputs(hidden_states, final, logits)
