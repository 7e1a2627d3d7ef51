"""The GLM network, its variant with relative positions, and ChatGLM's."""

from glm_jax.model.chatglm import ChatGLM, DecodingChatGLM
from glm_jax.model.chatglm_config import ChatGLMConfig
from glm_jax.model.config import GLMConfig
from glm_jax.model.decoding import DecodingGLM, by_layer
from glm_jax.model.glm import GLM
from glm_jax.model.networks import decoding_network, decoding_params, network_of
from glm_jax.model.relative import RelativeGLM, RelativeGLMConfig

__all__ = [
    "GLM",
    "ChatGLM",
    "ChatGLMConfig",
    "DecodingChatGLM",
    "DecodingGLM",
    "GLMConfig",
    "RelativeGLM",
    "RelativeGLMConfig",
    "by_layer",
    "decoding_network",
    "decoding_params",
    "network_of",
]
