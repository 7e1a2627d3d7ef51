"""GLM, the General Language Model (Du et al., ACL 2022), in JAX and Flax.

The public names are loaded when they are first used, so that importing the package costs nothing.
"""

import importlib

_PUBLIC = {
    "load": "glm_jax.load",
    "load_tokenizer": "glm_jax.tokenizer",
    "fill": "glm_jax.generate.fill",
    "GLM": "glm_jax.model",
    "GLMConfig": "glm_jax.model",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'glm_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
