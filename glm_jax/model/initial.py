"""The initial parameters of a model: shapes, shardings and values."""

from __future__ import annotations

import dataclasses
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from glm_jax.model import GLM
from glm_jax.parallel.layout import abstract_with_shardings, parameter_shardings


def abstract_params(model: GLM, mesh: Mesh) -> PyTree:
    """Shapes, dtypes and shardings of the model's parameters over the mesh."""
    boxed = jax.eval_shape(lambda key: initial_params(model, key), jax.random.key(0))
    return abstract_with_shardings(nn.unbox(boxed), parameter_shardings(boxed, mesh))


def initial_params(model: GLM, key: Array) -> PyTree:
    """Initial parameters; they depend neither on the size of the batch nor on the attention.

    Layers are drawn in a loop, which is compiled once for all of them.
    """
    model = model.clone(config=dataclasses.replace(model.config, attention="xla", scan_layers=True))
    return _traced_params(model, key)


# A run asks for the parameters' shapes, then for their values: JAX keeps what it has traced.
@partial(jax.jit, static_argnums=0, inline=True)
def _traced_params(model: GLM, key: Array) -> PyTree:
    tokens = jnp.zeros((1, 1), jnp.int32)
    positions = jnp.zeros((1, 2, 1), jnp.int32)
    return model.init(key, tokens, positions, jnp.zeros((1,), jnp.int32))["params"]
