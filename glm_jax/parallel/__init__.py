"""Device meshes and how arrays are sharded over them."""

from glm_jax.parallel.layout import LayoutConfig, initialize_sharded, parameter_shardings
from glm_jax.parallel.mesh import MeshConfig, make_mesh

__all__ = [
    "LayoutConfig",
    "MeshConfig",
    "initialize_sharded",
    "make_mesh",
    "parameter_shardings",
]
