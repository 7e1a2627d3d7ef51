"""Which spans become blanks, and the examples that are made of them.

The public names are imported on first use, so that importing the package is fast.
"""

from typing import TYPE_CHECKING

from glm_jax.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from glm_jax.data.blanks.build import build_blanks
    from glm_jax.data.blanks.config import BlankConfig, Objective

__all__ = [
    "BlankConfig",
    "Objective",
    "build_blanks",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "BlankConfig": "config",
        "Objective": "config",
        "build_blanks": "build",
    },
)
