"""Filling and scoring over HTTP; several requests share the rows of one engine.

The public names are imported on first use, so that importing the package is fast.
"""

from typing import TYPE_CHECKING

from glm_jax.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from glm_jax.serve.app import make_app
    from glm_jax.serve.settings import ServeSettings
    from glm_jax.serve.worker import Worker

__all__ = ["ServeSettings", "Worker", "make_app"]

__getattr__ = lazy_exports(
    __name__,
    {
        "make_app": "app",
        "ServeSettings": "settings",
        "Worker": "worker",
    },
)
