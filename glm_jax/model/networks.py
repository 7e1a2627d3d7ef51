"""The network of a configuration."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxtyping import PyTree

from glm_jax.model.chatglm import ChatGLM, DecodingChatGLM
from glm_jax.model.chatglm_config import ChatGLMConfig
from glm_jax.model.config import GLMConfig
from glm_jax.model.decode_kernels.layers import DecodeKernels
from glm_jax.model.decoding import DecodingGLM, by_layer, in_compute_dtype
from glm_jax.model.glm import GLM
from glm_jax.model.layers import Linear, LinearKind
from glm_jax.model.prefix import with_projected_prefix
from glm_jax.model.quantized import quantized


def network_of(config: GLMConfig, *, linear: LinearKind = Linear, **attributes: Any) -> GLM:
    """The network: `ChatGLM` or `GLM`.

    Args:
      config: its dimensions and numerics.
      linear: the kind of linear maps in the blocks, on floating-point kernels.
      attributes: others of `GLM`.
    """
    linear = quantized(linear, config.quantization)
    if isinstance(config, ChatGLMConfig):
        return ChatGLM(config, linear=linear, **attributes)
    return GLM(config, linear=linear, **attributes)


def decoding_network(config: GLMConfig, *, kernels: DecodeKernels | None = None) -> DecodingGLM:
    """The network for decoding, which takes `decoding_params`.

    Args:
      config: its dimensions and numerics.
      kernels: of TPUs; None for plain operations.
    """
    if isinstance(config, ChatGLMConfig):
        config = dataclasses.replace(config, prefix_projection=False)
        return DecodingChatGLM(config, kernels=kernels)
    return DecodingGLM(config, kernels=kernels)


def decoding_params(config: GLMConfig, params: PyTree) -> PyTree:
    """The parameters of a network for decoding: a copy, one tree per layer; can be jitted.

    A projected prefix is computed once, and is a parameter of the layers then.
    """
    if isinstance(config, ChatGLMConfig):
        params = with_projected_prefix(config, params)
    return by_layer(in_compute_dtype(params, config.compute_dtype))
