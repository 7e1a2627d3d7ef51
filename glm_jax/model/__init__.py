"""The GLM network, and its variant with relative positions."""

from glm_jax.model.config import GLMConfig
from glm_jax.model.decoding import DecodingGLM, by_layer
from glm_jax.model.glm import GLM
from glm_jax.model.relative import RelativeGLM, RelativeGLMConfig

__all__ = ["GLM", "DecodingGLM", "GLMConfig", "RelativeGLM", "RelativeGLMConfig", "by_layer"]
