"""The GLM network."""

from glm_jax.model.config import GLMConfig
from glm_jax.model.glm import GLM

__all__ = ["GLM", "GLMConfig"]
