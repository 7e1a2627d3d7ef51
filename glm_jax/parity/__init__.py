"""Whether two checkpoints give the same numbers, and from which layer on they don't.

The public names are imported on first use, so that importing the package is fast.
"""

from typing import TYPE_CHECKING

from glm_jax.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from glm_jax.parity.report import ParityReport
    from glm_jax.parity.run import RandomInputs, check_parity

__all__ = [
    "ParityReport",
    "RandomInputs",
    "check_parity",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "ParityReport": "report",
        "RandomInputs": "run",
        "check_parity": "run",
    },
)
