"""What is saved of a block for its backward pass, and what is recomputed.

Gathered parameters are not saved, unless a policy `keeps_gathered`: the backward pass gathers them
again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import flax.linen as nn
import jax

from glm_jax.parallel.collectives import active_axes
from glm_jax.parallel.mesh import MESH_AXES

# Names of what a block computes, for policies to choose from.
QUERY_KEY_VALUE = "query_key_value"
ATTENTION_CONTEXT = "attention_context"
ATTENTION_LOGSUMEXP = "attention_logsumexp"
ATTENTION_OUTPUT = "attention_output"
MLP_UP = "mlp_up"

# The results of matrix products and attention; the operations between them are cheap.
PRODUCTS = (
    QUERY_KEY_VALUE,
    ATTENTION_CONTEXT,
    ATTENTION_LOGSUMEXP,
    ATTENTION_OUTPUT,
    MLP_UP,
)

_GATHERED = "_gathered"

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

REMAT_POLICIES = ("none", "minimal", "minimal_gathered", "offload", "full", "full_gathered")


def remat_policy(name: str) -> Callable[..., Any] | None:
    """The policy of one of REMAT_POLICIES for `jax.checkpoint`, None for none at all.

    "none" saves all but what was gathered from other devices; "minimal" saves the results of the
    products that the backward pass needs, and of flash attention (other kinds are recomputed);
    "offload" saves these in the host's memory; "full" saves only a block's input.
    "minimal_gathered" and "full_gathered" are these with gathered parameters kept, see
    `keeps_gathered`.
    """
    policies = jax.checkpoint_policies
    name = name.removesuffix(_GATHERED)
    if name == "none":
        return _all_but_gathered if active_axes(MESH_AXES) else None
    if name == "minimal":
        return policies.save_only_these_names(*PRODUCTS)
    if name == "offload":
        return policies.save_and_offload_only_these_names(
            names_which_can_be_saved=[ATTENTION_LOGSUMEXP],
            names_which_can_be_offloaded=[n for n in PRODUCTS if n != ATTENTION_LOGSUMEXP],
            offload_src="device",
            offload_dst="pinned_host",
        )
    return policies.nothing_saveable


def keeps_gathered(name: str) -> bool:
    """Whether the backward pass uses the parameters that the forward pass gathered.

    They are in the compute dtype, those of all layers at a time; nothing is transferred twice.
    """
    return name.endswith(_GATHERED)


def rematerialize(
    function: Callable[Arguments, Result], name: str, *, in_loop: bool
) -> Callable[Arguments, Result]:
    """`function(module, ...)`, recomputed in the backward pass by one of REMAT_POLICIES.

    Args:
      function: a layer.
      name: of the policy.
      in_loop: whether layers run in a loop. It keeps the compiler from merging what is computed
        twice; without one, barriers must.
    """
    policy = remat_policy(name)
    return nn.remat(function, prevent_cse=not in_loop, policy=policy) if policy else function


def _all_but_gathered(primitive: Any, *_operands: Any, **_parameters: Any) -> bool:
    return primitive.name != "all_gather"
