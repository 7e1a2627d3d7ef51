"""GLM, the General Language Model (Du et al., ACL 2022), in JAX and Flax.

The public names are loaded when they are first used, so that importing the package costs nothing.
"""

from typing import TYPE_CHECKING

from glm_jax import environment
from glm_jax.lazy_exports import lazy_exports

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

__getattr__ = lazy_exports(
    __name__,
    {
        "load": "convert.load",
        "load_tokenizer": "tokenizer",
        "fill": "generate.fill",
        "score": "generate.fill",
        "Filler": "generate.fill",
        "Sampling": "generate.settings",
        "GLM": "model",
        "GLMConfig": "model",
        "RelativeGLM": "model",
        "RelativeGLMConfig": "model",
    },
)

# Before any module of the package imports TensorFlow or JAX.
environment.set_defaults()


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
