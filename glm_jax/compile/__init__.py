"""Train steps compiled for TPUs ahead of time, without the hardware, and their costs.

The public names are imported on first use, so that importing the package is fast.
"""

import importlib
from typing import TYPE_CHECKING

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

_PUBLIC = {
    "CompiledProgram": "glm_jax.compile.program",
    "compile_program": "glm_jax.compile.program",
    "StepReport": "glm_jax.compile.report",
    "read_report": "glm_jax.compile.report",
    "compile_step": "glm_jax.compile.step",
    "Topology": "glm_jax.compile.topology",
    "open_topology": "glm_jax.compile.topology",
}


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'glm_jax.compile' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
