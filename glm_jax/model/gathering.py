"""Gives layers their parameters in full where devices store them in shards.

Layers are plain Flax: they name the axes of their parameters and use them as they are. Under
`jax.shard_map` a device holds only its shard of each. Only this module depends on that: the
parameters of a module are gathered around a call of it, over all mesh axes but tensor, so that a
layer sees those of tensor-parallel width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ParamSpec, TypeVar

import flax.linen as nn
import jax
from jax.sharding import PartitionSpec
from jaxtyping import PyTree

from glm_jax.parallel.collectives import gather_parameter

ParamSpecs = Mapping[str, Any]
"""A PartitionSpec for every parameter, in the tree of the parameters."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def with_gathered_parameters(
    function: Callable[Arguments, Result],
    specs: ParamSpecs | None,
    dtype: str,
    *,
    over_tensor: bool = False,
) -> Callable[Arguments, Result]:
    """`function(module, ...)` with the module's parameters gathered at the start of the call.

    To keep gathered parameters from being held for the backward pass, put `nn.remat` around the
    result.

    Args:
      function: of a module and other arguments, such as a method of the module's class.
      specs: how the parameters of the module are sharded; those without a spec are not passed on.
        None: the parameters are there in full, and nothing is gathered.
      dtype: of gathered parameters, the compute dtype; the cast comes before the transfer.
      over_tensor: as in `gather_parameter`.
    """
    if specs is None:
        return function
    gather = partial(gather_parameter, dtype=dtype, over_tensor=over_tensor)

    def gather_all(variables: Mapping[str, PyTree]) -> dict[str, PyTree]:
        return {"params": _map_specs(gather, variables["params"], specs)}

    return nn.map_variables(function, "params", gather_all)


def with_part_of_stack(
    function: Callable[Arguments, Result], index: slice | int
) -> Callable[Arguments, Result]:
    """`function(module, ...)` with this part of the module's parameters, along the leading axis."""

    def take(variables: Mapping[str, PyTree]) -> dict[str, PyTree]:
        return {"params": jax.tree.map(lambda values: values[index], variables["params"])}

    return nn.map_variables(function, "params", take)


def specs_of_layer(specs: ParamSpecs) -> dict[str, Any]:
    """Specs of one layer, from those of parameters that are stacked along a leading axis."""
    return {
        name: PartitionSpec(*spec[1:]) if isinstance(spec, PartitionSpec) else specs_of_layer(spec)
        for name, spec in specs.items()
    }


def tables_of(specs: ParamSpecs) -> dict[str, PartitionSpec]:
    """Specs of a model's own parameters, which are its embedding tables."""
    return {name: spec for name, spec in specs.items() if isinstance(spec, PartitionSpec)}


def _map_specs(function: Callable[..., jax.Array], params: PyTree, specs: Any) -> PyTree:
    if isinstance(specs, PartitionSpec):
        return function(params, specs)
    return {name: _map_specs(function, params[name], spec) for name, spec in specs.items()}
