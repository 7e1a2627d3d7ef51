"""Batches as people can read them: in the terminal and as pictures.

The public names are imported on first use, so that importing the package is fast.
"""

from typing import TYPE_CHECKING

from glm_jax.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from glm_jax.data.inspect.picture import draw_example, example_figure
    from glm_jax.data.inspect.terminal import render_example

__all__ = [
    "draw_example",
    "example_figure",
    "render_example",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "draw_example": "picture",
        "example_figure": "picture",
        "render_example": "terminal",
    },
)
