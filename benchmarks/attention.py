"""Time of attention, forward and backward, for every kind that the devices here can run.

    python benchmarks/attention.py
    python benchmarks/attention.py --sequence_length 1024 --num_heads 32 --dtype bfloat16

The kinds are those of `model.attention`, and PyTorch's scaled_dot_product_attention under the
causal mask on a CPU where PyTorch is installed. They alternate in every round, so that other load
on the machine affects all of them equally. Prefix lengths are uniform from none to all positions.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--sequence_length", type=int, default=512)
    parser.add_argument("--num_heads", type=int, default=12)
    parser.add_argument("--head_size", type=int, default=64)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()

    import jax

    shape = (
        arguments.batch_size,
        arguments.sequence_length,
        arguments.num_heads,
        arguments.head_size,
    )
    platform = jax.default_backend()
    steps = our_steps(shape, arguments.dtype, platform)
    if platform == "cpu" and importlib.util.find_spec("torch"):
        steps["PyTorch, causal"] = torch_step(shape, arguments.dtype)
    print(f"{platform}, {' x '.join(map(str, shape))}, {arguments.dtype}, forward and backward")
    print(f"{'':18}{'best ms':>10}{'median ms':>12}")
    for name, times in measure(steps, arguments.rounds).items():
        print(f"{name:18}{1e3 * min(times):10.2f}{1e3 * statistics.median(times):12.2f}")


def measure(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each step in every round, after one that does not count."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(1 + rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    return {name: seconds[1:] for name, seconds in times.items()}


def our_steps(
    shape: tuple[int, int, int, int], dtype: str, platform: str
) -> dict[str, Callable[[], None]]:
    """One step for each kind that can run."""
    from glm_jax.errors import UsageError
    from glm_jax.model.attention.choose import ATTENTION_KINDS, check_attention

    steps = {}
    for kind in ATTENTION_KINDS:
        try:
            check_attention(
                kind,
                platform=platform,
                attention_dropout=0.0,
                sequence_length=shape[1],
                head_size=shape[3],
            )
            step = our_step(kind, shape, dtype)
            step()
        except UsageError as error:
            print(f"{kind}: {error}")
        else:
            steps[kind] = step
    return steps


def our_step(kind: str, shape: tuple[int, int, int, int], dtype: str) -> Callable[[], None]:
    """Context and gradients of one fused projection [B, L, 3, D], as in the network."""
    import jax
    import jax.numpy as jnp

    from glm_jax.model.attention.choose import attention_function

    batch, length, _, _ = shape
    attention = attention_function(kind)
    prefix_length = jnp.linspace(0, length, batch).astype(jnp.int32)

    @jax.jit
    def run(projected, gradient):
        def attend(projected):
            query, key, value = (projected[:, :, part].reshape(shape) for part in range(3))
            return attention(query, key, value, prefix_length).reshape(gradient.shape)

        context, pull_back = jax.vjp(attend, projected)
        return context, pull_back(gradient)

    keys = jax.random.split(jax.random.key(0))
    width = shape[2] * shape[3]
    projected = jax.random.normal(keys[0], (batch, length, 3, width), dtype)
    gradient = jax.random.normal(keys[1], (batch, length, width), dtype)
    return lambda: jax.block_until_ready(run(projected, gradient))


def torch_step(shape: tuple[int, int, int, int], dtype: str) -> Callable[[], None]:
    """The same of PyTorch."""
    import torch

    batch, length, num_heads, head_size = shape
    projected = torch.randn(
        batch, length, 3, num_heads, head_size, dtype=getattr(torch, dtype), requires_grad=True
    )
    gradient = torch.randn(batch, num_heads, length, head_size, dtype=projected.dtype)

    def step() -> None:
        projected.grad = None
        query, key, value = (projected[:, :, part].transpose(1, 2) for part in range(3))
        context = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=True
        )
        context.backward(gradient)

    return step


if __name__ == "__main__":
    main()
