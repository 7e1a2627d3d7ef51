"""Batches as people can read them: in the terminal and as pictures.

The public names are imported on first use, so that importing the package is fast.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glm_jax.data.inspect.picture import draw_example, example_figure
    from glm_jax.data.inspect.terminal import render_example

__all__ = [
    "draw_example",
    "example_figure",
    "render_example",
]

_PUBLIC = {
    "draw_example": "picture",
    "example_figure": "picture",
    "render_example": "terminal",
}


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'glm_jax.data.inspect' has no attribute {name!r}")
    return getattr(importlib.import_module(f"glm_jax.data.inspect.{_PUBLIC[name]}"), name)
