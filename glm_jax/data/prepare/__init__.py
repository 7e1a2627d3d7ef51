"""Documents -> token store.

The public names are imported on first use, so that importing the package is fast.
"""

from typing import TYPE_CHECKING

from glm_jax.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from glm_jax.data.prepare.report import PrepareReport
    from glm_jax.data.prepare.run import prepare
    from glm_jax.data.prepare.runner import LocalRunner

__all__ = [
    "LocalRunner",
    "PrepareReport",
    "prepare",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "LocalRunner": "runner",
        "PrepareReport": "report",
        "prepare": "run",
    },
)
