"""Train steps compiled for TPUs ahead of time, without the hardware, and their costs.

The public names are imported on first use, so that importing the package is fast.
"""

from typing import TYPE_CHECKING

from glm_jax.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from glm_jax.compile.program import CompiledProgram, compile_program
    from glm_jax.compile.report import StepReport, read_report
    from glm_jax.compile.step import compile_step
    from glm_jax.compile.topology import Topology, open_topology

__all__ = [
    "CompiledProgram",
    "StepReport",
    "Topology",
    "compile_program",
    "compile_step",
    "open_topology",
    "read_report",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "CompiledProgram": "program",
        "compile_program": "program",
        "StepReport": "report",
        "read_report": "report",
        "compile_step": "step",
        "Topology": "topology",
        "open_topology": "topology",
    },
)
