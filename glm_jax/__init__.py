"""GLM, the General Language Model (Du et al., ACL 2022), in JAX and Flax.

The public names are loaded when they are first used, so that importing the package costs nothing.
"""

import importlib
from typing import TYPE_CHECKING

from glm_jax import environment

if TYPE_CHECKING:
    from glm_jax.convert.load import load
    from glm_jax.generate.fill import Filler, fill, score
    from glm_jax.generate.settings import Sampling
    from glm_jax.model import GLM, GLMConfig, RelativeGLM, RelativeGLMConfig
    from glm_jax.tokenizer import load_tokenizer

__all__ = [
    "GLM",
    "Filler",
    "GLMConfig",
    "RelativeGLM",
    "RelativeGLMConfig",
    "Sampling",
    "fill",
    "load",
    "load_tokenizer",
    "score",
]

_PUBLIC = {
    "load": "glm_jax.convert.load",
    "load_tokenizer": "glm_jax.tokenizer",
    "fill": "glm_jax.generate.fill",
    "score": "glm_jax.generate.fill",
    "Filler": "glm_jax.generate.fill",
    "Sampling": "glm_jax.generate.settings",
    "GLM": "glm_jax.model",
    "GLMConfig": "glm_jax.model",
    "RelativeGLM": "glm_jax.model",
    "RelativeGLMConfig": "glm_jax.model",
}

# Before any module of the package imports TensorFlow or JAX.
environment.set_defaults()


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'glm_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
