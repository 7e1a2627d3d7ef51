"""Tokens per second of a GLM-Base step on this machine's CPU, and of PyTorch's GPT-2 of that size.

    pip install transformers torch
    python benchmarks/train_step.py

Both networks have the sizes of configs/models/glm_base.gin and the AdamW of its run, float32, no
dropout, one batch of 4 x 512 random tokens, gradient clipping, and as many threads. GLM has the
settings that suit a CPU: `model.remat='none'`, `model.attention='by_head'` and
`model.scan_layers=False`, which compiles longer (--scan_layers for the other). Each program has a
process of its own. Their steps alternate, and the median counts. What differs:
- GLM sees a prefix and has a second position table of 513 rows; GPT-2 is causal throughout.
- GPT-2's targets are the next tokens, 511 of 512 positions; GLM's are what the variant says: all
  positions, or the share that blank infilling masks.
- GPT-2's learning rate is the peak at every step; GLM's warms up.
- GPT-2 runs as its library starts it, with PyTorch's fused attention and fused AdamW, not through
  torch.compile.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from random_inputs import TARGET_FRACTION, TARGET_SHARE

CONFIGURATION = Path(__file__).parents[1] / "configs" / "runs" / "glm_base.gin"

# Does one step and returns its loss.
Step = Callable[[], float]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=8, help="measured steps of each")
    parser.add_argument("--warmup_steps", type=int, default=2, help="steps before, not measured")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--scan_layers", action="store_true", help="one layer in a loop")
    arguments = parser.parse_args()
    # Both libraries take as many threads as there are cores to run on.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    os.environ["JAX_PLATFORMS"] = "cpu"

    shape = (arguments.batch_size, arguments.length)
    scan = arguments.scan_layers
    programs = {
        "glm_jax, targets everywhere": start(glm_step, *shape, 1.0, 1.0, scan),
        f"glm_jax, {TARGET_SHARE:.0%} targets": start(
            glm_step, *shape, TARGET_SHARE, TARGET_FRACTION, scan
        ),
        "PyTorch GPT-2": start(gpt2_step, *shape, arguments.threads),
    }
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    losses: dict[str, float] = {}
    for number in range(arguments.warmup_steps + arguments.steps):
        for name, program in programs.items():
            program.send(True)
            taken, losses[name] = program.recv()
            if number >= arguments.warmup_steps:
                seconds[name].append(taken)
    for program in programs.values():
        program.send(False)

    tokens = arguments.batch_size * arguments.length
    reference = statistics.median(seconds["PyTorch GPT-2"])
    print(f"{arguments.batch_size} x {arguments.length} tokens, {arguments.threads} threads")
    for name, measured in seconds.items():
        median = statistics.median(measured)
        print(
            f"{name:30} {median:7.3f} s (fastest {min(measured):.3f})  "
            f"{tokens / median:7.0f} tokens/s  {reference / median:5.2f}x  loss {losses[name]:.3f}"
        )


def start(make_step: Callable[..., Step], *arguments: Any) -> Connection:
    """Starts a process for `make_step(*arguments)`, and waits until it can do a step."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    context.Process(target=serve, args=(theirs, make_step, *arguments), daemon=True).start()
    theirs.close()  # so that the end of the process ends the wait for it
    ours.recv()
    return ours


def serve(connection: Connection, make_step: Callable[..., Step], *arguments: Any) -> None:
    """Does a step whenever it is asked for one, and answers with its seconds and its loss."""
    from glm_jax.environment import keep_memory_between_steps

    keep_memory_between_steps()  # as the commands do; PyTorch's allocations profit as well
    step = make_step(*arguments)
    connection.send(True)
    while connection.recv():
        started = time.perf_counter()
        loss = step()
        connection.send((time.perf_counter() - started, loss))


def glm_step(
    batch_size: int,
    length: int,
    target_share: float,
    target_fraction: float,
    scan_layers: bool,
) -> Step:
    """A step of the program that `glm-jax pretrain` runs, with the last positions as targets."""
    import jax
    from random_inputs import training_rows

    from glm_jax.parallel.batches import to_devices
    from glm_jax.parallel.mesh import MeshConfig, make_mesh
    from glm_jax.train.program import make_program
    from glm_jax.train.step import settings_on_devices

    config = configuration(scan_layers)
    mesh = make_mesh(MeshConfig())
    program = make_program(
        config.model, config.optimizer, mesh, seed=0, target_fraction=target_fraction
    )
    rows = training_rows(batch_size, length, config.model.vocab_size, target_share)
    with jax.set_mesh(mesh):
        (batch,) = to_devices([rows], mesh, batch_size)
        state, settings = program.initialize(), settings_on_devices(program.settings, mesh)

    def step() -> float:
        nonlocal state
        with jax.set_mesh(mesh):
            state, metrics = program.train_step(state, batch, settings)
            jax.block_until_ready(state)
        return float(metrics["loss"])

    return step


def gpt2_step(batch_size: int, length: int, threads: int) -> Step:
    """The same for a GPT-2 of that size in PyTorch."""
    import torch
    from random_inputs import draw_tokens
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    config = configuration()
    sizes, settings = config.model, config.optimizer
    model: Any = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=sizes.vocab_size,
            n_positions=length,
            n_embd=sizes.hidden_size,
            n_layer=sizes.num_layers,
            n_head=sizes.num_attention_heads,
            embd_pdrop=0.0,
            resid_pdrop=0.0,
            attn_pdrop=0.0,
            use_cache=False,
        )
    )
    model.train()
    decayed = [value for value in model.parameters() if value.ndim > 1]
    others = [value for value in model.parameters() if value.ndim == 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": settings.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        fused=True,
    )
    tokens = torch.tensor(draw_tokens(batch_size, length, sizes.vocab_size), dtype=torch.long)

    def step() -> float:
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def configuration(scan_layers: bool = False) -> Any:
    """GLM-Base's run, in float32 and without dropout."""
    from glm_jax.configure import read_configuration

    dropouts = (f"model.{where}_dropout=0.0" for where in ("embedding", "hidden", "attention"))
    return read_configuration(
        [CONFIGURATION],
        [
            "model.compute_dtype='float32'",
            "model.remat='none'",
            "model.attention='by_head'",
            f"model.scan_layers={scan_layers}",
            *dropouts,
        ],
    )


if __name__ == "__main__":
    main()
