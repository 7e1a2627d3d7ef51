"""Weights of a finished or running training run, ready to use."""

from __future__ import annotations

from pathlib import Path

import jax
from jaxtyping import PyTree

from glm_jax.checkpoint import Checkpoints
from glm_jax.errors import UsageError
from glm_jax.model import GLM, GLMConfig
from glm_jax.parallel.mesh import MeshConfig, make_mesh
from glm_jax.train.program import abstract_params


def load(path: str | Path, *, mesh: jax.sharding.Mesh | None = None) -> tuple[GLM, PyTree]:
    """The model and the newest parameters of a run folder.

    Args:
      path: a run folder, as `glm-jax pretrain` leaves it.
      mesh: where the parameters go; all devices, with whole copies, by default.

    Returns:
      The model, and its parameters as `model.apply({"params": params}, ...)` takes them.

    Raises:
      UsageError: no run there, or none that has been saved.
      RunError: the newest checkpoint is damaged.
    """
    folder = Path(path) / "checkpoints"
    if not folder.is_dir():
        raise UsageError(f"{path} is not a run folder: it has no checkpoints/")
    with Checkpoints(folder) as checkpoints:
        step = checkpoints.latest_step()
        if step is None:
            raise UsageError(f"{folder} holds no complete checkpoint")
        record = checkpoints.read_record(step)
        model = GLM(GLMConfig(**record["configuration"]["model"]))
        mesh = make_mesh(MeshConfig()) if mesh is None else mesh
        restored = checkpoints.restore(step, {"params": abstract_params(model, mesh)})
    return model, restored["params"]
