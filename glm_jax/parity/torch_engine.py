"""Runs a checkpoint with the PyTorch reference; imported only where torch is installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from glm_jax.convert.quantize import ExpandedSource
from glm_jax.convert.weights import WeightSource
from glm_jax.model.chatglm_config import ChatGLMConfig
from glm_jax.model.config import GLMConfig
from glm_jax.parity.inputs import Inputs
from glm_jax.parity.torch_chatglm import TorchChatGLM, prefixes_of
from glm_jax.parity.torch_reference import TorchGLM


def run_torch(
    source: WeightSource, config: GLMConfig, inputs: Inputs, dtype: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Residual stream [N + 1, B, L, D], final hidden states [B, L, D] and logits [B, L, V].

    Tensors are read one at a time, and are in memory once, in `dtype`.
    """
    expanded = ExpandedSource(source, np.dtype(np.float32))
    state = {name: torch.from_numpy(expanded.read(name).astype(dtype)) for name in expanded.tensors}
    given = (inputs.tokens, inputs.position_ids, inputs.attention_mask)
    arguments: list[Any] = [torch.from_numpy(np.asarray(array, np.int64)) for array in given]
    with torch.device("meta"):
        network = _chatglm(config) if isinstance(config, ChatGLMConfig) else _glm(config)
    if isinstance(config, ChatGLMConfig):
        arguments.append(prefixes_of(state, config.num_layers))
    network.load_state_dict(state, assign=True)
    with torch.no_grad():
        outputs = network(*arguments)
    stream = np.stack([hidden.numpy() for hidden in outputs.hidden_states])
    return stream, outputs.final_hidden.numpy(), outputs.logits.numpy()


def _glm(config: GLMConfig) -> TorchGLM:
    return TorchGLM(
        vocab_size=config.vocab_size,
        num_layers=config.num_layers,
        hidden_size=config.hidden_size,
        num_attention_heads=config.num_attention_heads,
        position_rows=config.num_positions,
        block_position_encoding=config.block_position_encoding,
        layernorm_epsilon=config.layernorm_epsilon,
    )


def _chatglm(config: ChatGLMConfig) -> TorchChatGLM:
    return TorchChatGLM(
        vocab_size=config.vocab_size,
        num_layers=config.num_layers,
        hidden_size=config.hidden_size,
        num_attention_heads=config.num_attention_heads,
        inner_size=config.mlp_size,
        layernorm_epsilon=config.layernorm_epsilon,
        two_dimensional=config.block_position_encoding,
    )
