"""Training: loss, gradients, optimizers, the step and the loop around them.

The public names are loaded when they are first used, so that importing the package costs nothing.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glm_jax.train.config import RunConfig, TrainConfig
    from glm_jax.train.evaluate import Evaluation, EvaluationConfig
    from glm_jax.train.optimizer import OptimizerConfig, make_optimizer
    from glm_jax.train.optimizers import OPTIMIZERS
    from glm_jax.train.program import Program, make_program
    from glm_jax.train.step import TrainState

__all__ = [
    "OPTIMIZERS",
    "Evaluation",
    "EvaluationConfig",
    "OptimizerConfig",
    "Program",
    "RunConfig",
    "TrainConfig",
    "TrainState",
    "make_optimizer",
    "make_program",
]

_PUBLIC = {
    "OPTIMIZERS": "optimizers",
    "Evaluation": "evaluate",
    "EvaluationConfig": "evaluate",
    "OptimizerConfig": "optimizer",
    "Program": "program",
    "RunConfig": "config",
    "TrainConfig": "config",
    "TrainState": "step",
    "make_optimizer": "optimizer",
    "make_program": "program",
}


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'glm_jax.train' has no attribute {name!r}")
    return getattr(importlib.import_module(f"glm_jax.train.{_PUBLIC[name]}"), name)
