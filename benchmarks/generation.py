"""Decoding at the size of GLM-Base on this machine's CPU, compared with two others.

    pip install transformers torch
    python benchmarks/generation.py

All have 12 layers of 768 with 12 heads and 30,592 tokens, random weights, float32, as many threads,
a prompt of 256 tokens and 128 new ones, taken greedily. Runs alternate in one process and the
fastest of each counts. What differs:
- "PyTorch GPT-2" is `GPT2LMHeadModel` of the transformers library with its own cache, called in the
  leanest loop: logits of the last position only, nothing processed.
- "layer inputs" is what the original GLM does, in PyTorch: the inputs of every layer are kept, and
  their keys and values computed again at every step.
- glm_jax fills one blank of a text of 256 tokens; it also gives the log-probability of every token.

Time to first token is the reading of all prompts of the batch and one step. The time to compile is
apart: the first run of a process has it, later ones have not.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

from random_inputs import FillSeconds

LAYERS, HIDDEN, HEADS, WORDS = 12, 768, 12, 30_592
POSITIONS = 512


# Reads a batch of prompts and generates a number of tokens.
Run = Callable[[int, int], FillSeconds]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--prompt", type=int, default=256, help="tokens of a prompt")
    parser.add_argument("--tokens", type=int, default=128, help="new tokens of a text")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    # All libraries take as many threads as there are cores to run on.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    os.environ["JAX_PLATFORMS"] = "cpu"

    import torch

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    ours, compile_programs = glm_jax_run(arguments.prompt)
    runs: dict[str, Run] = {
        "glm_jax": ours,
        "PyTorch GPT-2": gpt2_run(arguments.prompt),
        "layer inputs": layer_input_run(arguments.prompt),
    }
    print(f"{arguments.prompt} + {arguments.tokens} tokens, {arguments.threads} threads")
    for batch_size in arguments.batch_sizes:
        measured: dict[str, list[FillSeconds]] = {name: [] for name in runs}
        count, seconds = compile_programs(batch_size, arguments.tokens)
        for _ in range(arguments.repeats):
            for name, run in runs.items():
                measured[name].append(run(batch_size, arguments.tokens))
        report(batch_size, arguments.tokens, measured)
        print(f"  glm_jax compiled {count} programs in {seconds:.1f} s before that")


def report(batch_size: int, tokens: int, measured: dict[str, list[FillSeconds]]) -> None:
    """Prints one line a program, with the ratio of its speed to ours."""
    best = {
        name: FillSeconds(min(run.first for run in of_all), min(run.rest for run in of_all))
        for name, of_all in measured.items()
    }
    print(f"batch {batch_size}")
    for name, (first, rest) in best.items():
        print(
            f"  {name:16} first token {first:6.2f} s   "
            f"then {batch_size * (tokens - 1) / rest:7.1f} tokens/s   "
            f"{rest / (tokens - 1) * 1e3:6.1f} ms a step   "
            f"glm_jax is {rest / best['glm_jax'].rest:5.2f}x as fast"
        )


def glm_jax_run(prompt: int) -> tuple[Run, Callable[[int, int], tuple[int, float]]]:
    """Our engine; and a first run, which counts the compiled programs and their time."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import numpy as np
    from random_inputs import random_decoder, timed_fill

    from glm_jax.cli.compile_counter import counted_compilations
    from glm_jax.model import GLM, GLMConfig

    config = GLMConfig(
        vocab_size=WORDS,
        num_layers=LAYERS,
        hidden_size=HIDDEN,
        num_attention_heads=HEADS,
        max_sequence_length=POSITIONS,
    )
    inputs = (jnp.zeros((1, 8), jnp.int32), jnp.zeros((1, 2, 8), jnp.int32), jnp.ones(1, jnp.int32))
    params = nn.unbox(jax.jit(GLM(config).init)(jax.random.key(0), *inputs))["params"]
    decoder = random_decoder(GLM(config), params)
    draw = np.random.default_rng(0)

    def run(batch_size: int, tokens: int) -> FillSeconds:
        return timed_fill(decoder, draw, batch_size, prompt, tokens)

    def compile_programs(batch_size: int, tokens: int) -> tuple[int, float]:
        with counted_compilations() as compilations:
            run(batch_size, tokens)
        return compilations.count, compilations.seconds

    return run, compile_programs


def gpt2_run(prompt: int) -> Run:
    """The transformers library's GPT-2."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=WORDS,
        n_positions=POSITIONS,
        n_embd=HIDDEN,
        n_layer=LAYERS,
        n_head=HEADS,
        bos_token_id=None,
        eos_token_id=None,
    )
    model: Any = GPT2LMHeadModel(config).eval()

    @torch.inference_mode()
    def run(batch_size: int, tokens: int) -> FillSeconds:
        ids = torch.randint(0, WORDS, (batch_size, prompt))
        started = time.perf_counter()
        output = model(input_ids=ids, use_cache=True, logits_to_keep=1)
        token = output.logits[:, -1:].argmax(-1)
        first = time.perf_counter()
        for _ in range(tokens - 1):
            output = model(input_ids=token, past_key_values=output.past_key_values, use_cache=True)
            token = output.logits[:, -1:].argmax(-1)
        return FillSeconds(first - started, time.perf_counter() - first)

    return run


def layer_input_run(prompt: int) -> Run:
    """A GLM that keeps the inputs of its layers, as the original does."""
    import torch
    from torch.nn import functional

    def matrix(*shape: int) -> torch.Tensor:
        return 0.02 * torch.randn(shape)

    def norm(hidden: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(hidden, (HIDDEN,), one, zero)

    one, zero = torch.ones(HIDDEN), torch.zeros(HIDDEN)
    embedding_table, positions, block_positions = (
        matrix(rows, HIDDEN) for rows in (WORDS, POSITIONS + 1, POSITIONS + 1)
    )
    layers = [
        {
            "query_key_value": (matrix(3 * HIDDEN, HIDDEN), torch.zeros(3 * HIDDEN)),
            "output": (matrix(HIDDEN, HIDDEN), zero),
            "up": (matrix(4 * HIDDEN, HIDDEN), torch.zeros(4 * HIDDEN)),
            "down": (matrix(HIDDEN, 4 * HIDDEN), zero),
        }
        for _ in range(LAYERS)
    ]

    def heads(array: torch.Tensor) -> torch.Tensor:
        return array.unflatten(-1, (HEADS, HIDDEN // HEADS)).transpose(1, 2)

    def step(
        tokens: torch.Tensor,
        position: torch.Tensor,
        block: torch.Tensor,
        memory: list[torch.Tensor],
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Next tokens [B, 1], and the inputs of every layer with those of the new positions."""
        hidden = embedding_table[tokens] + positions[position] + block_positions[block]
        new_memory = []
        for number, layer in enumerate(layers):
            seen = torch.cat([memory[number], hidden], dim=1) if memory else hidden
            new_memory.append(seen)
            projected = functional.linear(norm(seen), *layer["query_key_value"])
            query, key, value = (heads(part) for part in projected.chunk(3, dim=-1))
            context = functional.scaled_dot_product_attention(
                query[:, :, -tokens.shape[1] :], key, value
            )
            attended = context.transpose(1, 2).flatten(2)
            hidden = hidden + functional.linear(attended, *layer["output"])
            inner = functional.gelu(
                functional.linear(norm(hidden), *layer["up"]), approximate="tanh"
            )
            hidden = hidden + functional.linear(inner, *layer["down"])
        return functional.linear(norm(hidden[:, -1:]), embedding_table).argmax(-1), new_memory

    @torch.inference_mode()
    def run(batch_size: int, tokens: int) -> FillSeconds:
        ids = torch.randint(0, WORDS, (batch_size, prompt))
        position = torch.arange(prompt)
        started = time.perf_counter()
        _, memory = step(ids, position, torch.zeros_like(position), [])
        mask = torch.tensor([prompt // 2])
        token, memory = step(
            torch.ones(batch_size, 1, dtype=torch.long), mask, mask * 0 + 1, memory
        )
        first = time.perf_counter()
        for number in range(tokens - 1):
            token, memory = step(token, mask, mask * 0 + number + 2, memory)
        return FillSeconds(first - started, time.perf_counter() - first)

    return run


if __name__ == "__main__":
    main()
