"""Adam's moments in less memory: both in bfloat16, or the second one factored."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, BFloat16, Float32, Key, PyTree

# The Adafactor paper's bound on the root mean square of a parameter's update, before momentum.
LARGEST_UPDATE = 1.0
# A matrix is factored where both sides have at least as many numbers as this; the statistics of
# smaller ones are not worth an approximation.
MIN_FACTORED_SIDE = 128


def scale_by_bfloat16_adam(
    beta1: float, beta2: float, epsilon: float
) -> optax.GradientTransformation:
    """Adam that computes in float32 and stores both moments in bfloat16: half the memory.

    A step changes the second moment by a fraction of about 1 - beta2. Where that is less than half
    the spacing of bfloat16 (0.4% of the value), rounding to nearest would lose every change, so the
    second moment is rounded up or down at random and stays right on average. The first moment
    changes by a tenth of itself, and nearest is good for it. The noise depends on the number of
    updates and on the position in the array alone: not on the mesh, and the same after a restart.
    """
    adam = optax.scale_by_adam(beta1, beta2, epsilon)

    def init(params):
        state = adam.init(params)
        return state._replace(mu=_cast(state.mu, jnp.bfloat16), nu=_cast(state.nu, jnp.bfloat16))

    def update(updates, state, params=None):
        wide = state._replace(mu=_cast(state.mu, jnp.float32), nu=_cast(state.nu, jnp.float32))
        updates, new = adam.update(updates, wide, params)
        key = jax.random.fold_in(jax.random.key(0), new.count)
        return updates, new._replace(
            mu=_cast(new.mu, jnp.bfloat16), nu=_round_tree_at_random(new.nu, key)
        )

    return optax.GradientTransformation(init, update)


def scale_by_factored_adam(
    beta1: float, beta2: float, epsilon: float
) -> optax.GradientTransformation:
    """A second moment of row and column means, and momentum in bfloat16: a quarter of the memory.

    What differs from Adam: a matrix's second moment is the outer product of its rows' and columns'
    means, the first moment averages what was already divided by it, and an update whose norm is too
    large is scaled down. Decay rate and bias correction are Adam's. Row and column means are
    the same on every device; they are small.
    Source: Shazeer and Stern (2018), Adafactor; half-precision momentum as in Zhai et al. (2022),
    Scaling Vision Transformers.
    """
    return optax.chain(
        optax.scale_by_factored_rms(
            decay_rate=beta2,
            min_dim_size_to_factor=MIN_FACTORED_SIDE,
            # Added to squares here, and to their root in Adam.
            epsilon=epsilon**2,
            decay_rate_fn=_bias_corrected_decay,
        ),
        optax.clip_by_block_rms(LARGEST_UPDATE),
        optax.ema(beta1, accumulator_dtype=jnp.bfloat16),
    )


# What `optimizer.moments` may be, each made from beta1, beta2 and epsilon.
MOMENTS: dict[str, Callable[[float, float, float], optax.GradientTransformation]] = {
    "float32": optax.scale_by_adam,
    "bfloat16": scale_by_bfloat16_adam,
    "factored": scale_by_factored_adam,
}


def round_at_random(
    values: Float32[Array, "*shape"], key: Key[Array, ""]
) -> BFloat16[Array, "*shape"]:
    """One of the two bfloat16 neighbours of every value, such that the expectation is the value.

    bfloat16 is the upper half of float32: adding a random lower half carries into it as often as
    the lower half that is dropped asks for. Values that need no rounding stay as they are.
    """
    noise = jax.random.bits(key, values.shape, jnp.uint16).astype(jnp.uint32)
    upper = (jax.lax.bitcast_convert_type(values, jnp.uint32) + noise) >> 16
    return jax.lax.bitcast_convert_type(upper.astype(jnp.uint16), jnp.bfloat16)


def _round_tree_at_random(tree: PyTree, key: Key[Array, ""]) -> PyTree:
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    return structure.unflatten(map(round_at_random, leaves, keys))


def _cast(tree: PyTree, dtype: DTypeLike) -> PyTree:
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


def _bias_corrected_decay(step: ArrayLike, beta2: ArrayLike) -> Array:
    """The decay of a running mean over the steps so far, which needs no correction: 0 at step 0."""
    step, beta2 = jnp.asarray(step), jnp.asarray(beta2)
    return beta2 * (1 - beta2**step) / (1 - beta2 ** (step + 1))
