"""Runs a checkpoint with the PyTorch reference; imported only where torch is installed."""

from __future__ import annotations

import numpy as np
import torch

from glm_jax.convert.weights import WeightSource
from glm_jax.model.config import GLMConfig
from glm_jax.parity.inputs import Inputs
from glm_jax.parity.torch_reference import TorchGLM


def run_torch(
    source: WeightSource, config: GLMConfig, inputs: Inputs
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Residual stream [N + 1, B, L, D], final hidden states [B, L, D] and logits [B, L, V].

    Tensors are read one at a time, and are in memory once, in float32.
    """
    with torch.device("meta"):
        network = TorchGLM(
            vocab_size=config.vocab_size,
            num_layers=config.num_layers,
            hidden_size=config.hidden_size,
            num_attention_heads=config.num_attention_heads,
            position_rows=config.num_positions,
            block_position_encoding=config.block_position_encoding,
            layernorm_epsilon=config.layernorm_epsilon,
        )
    state = {
        name: torch.from_numpy(source.read(name).astype(np.float32)) for name in source.tensors
    }
    network.load_state_dict(state, assign=True)
    arguments = (inputs.tokens, inputs.position_ids, inputs.attention_mask)
    with torch.no_grad():
        outputs = network(*(torch.from_numpy(np.asarray(array, np.int64)) for array in arguments))
    stream = np.stack([hidden.numpy() for hidden in outputs.hidden_states])
    return stream, outputs.final_hidden.numpy(), outputs.logits.numpy()
