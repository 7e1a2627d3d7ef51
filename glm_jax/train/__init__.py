"""Training: loss, gradients, optimizers, the step and the loop around them.

The public names are loaded when they are first used, so that importing the package costs nothing.
"""

from typing import TYPE_CHECKING

from glm_jax.lazy_exports import lazy_exports

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

__getattr__ = lazy_exports(
    __name__,
    {
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
    },
)
