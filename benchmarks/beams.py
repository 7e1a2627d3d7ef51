"""Beam search at the size of GLM-Base on this machine's CPU, compared with BART-Base.

    pip install transformers torch
    python benchmarks/beams.py

Both summarise the same number of articles with the same number of beams and of new tokens (no
hypothesis may end early), with random weights, float32 and as many threads. GLM-Base has 12 layers
of 768 that read the article and write the summary; BART-Base has 6 that read and 6 that write, and
attend to the article as well. The transformers library searches all articles in one batch, and so
do we. Runs alternate in one process, and the fastest of each counts. Summaries of a single token
show what reading the articles costs.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

LAYERS, HIDDEN, HEADS, WORDS = 12, 768, 12, 30_592
BART_LAYERS, BART_WORDS = 6, 50_265
POSITIONS = 1024

# Summarises a batch in a number of new tokens; returns wall and CPU seconds.
Run = Callable[[int], tuple[float, float]]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--articles", type=int, default=4)
    parser.add_argument("--source", type=int, default=512, help="tokens of an article")
    parser.add_argument("--tokens", type=int, default=96, help="new tokens of a summary")
    parser.add_argument("--beams", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    os.environ["JAX_PLATFORMS"] = "cpu"

    import torch

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    sizes = (arguments.articles, arguments.source, arguments.beams)
    runs: dict[str, Run] = {"glm_jax": glm_jax_run(*sizes), "BART-Base": bart_run(*sizes)}
    print("{} articles of {} tokens, {} beams".format(*sizes))
    for tokens in (1, arguments.tokens):
        best = measure(runs, tokens, arguments.repeats)
        for name, (seconds, cpu_seconds) in best.items():
            rate = arguments.articles * tokens / seconds
            ratio = seconds / best["glm_jax"][0]
            print(
                f"  {name:10} {tokens:4} new {seconds:7.2f} s (CPU {cpu_seconds:6.2f} s) "
                f"{rate:7.1f} tokens/s   glm_jax is {ratio:5.2f}x as fast"
            )


def measure(runs: dict[str, Run], tokens: int, repeats: int) -> dict[str, tuple[float, float]]:
    """Wall and CPU seconds of the fastest of some alternating runs, after one of each."""
    for run in runs.values():
        run(tokens)
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            measured[name].append(run(tokens))
    return {name: min(times) for name, times in measured.items()}


def glm_jax_run(articles: int, source: int, beams: int) -> Run:
    """Our search."""
    import dataclasses

    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import numpy as np

    from glm_jax.generate.beam_engine import beam_search
    from glm_jax.generate.decoder import make_decoder
    from glm_jax.generate.prompt import Prompt
    from glm_jax.generate.settings import Sampling
    from glm_jax.model import GLM, GLMConfig
    from glm_jax.seq2seq.generate import PROMPT_MULTIPLE

    config = GLMConfig(
        vocab_size=WORDS,
        num_layers=LAYERS,
        hidden_size=HIDDEN,
        num_attention_heads=HEADS,
        max_sequence_length=POSITIONS,
    )
    inputs = (jnp.zeros((1, 8), jnp.int32), jnp.zeros((1, 2, 8), jnp.int32), jnp.ones(1, jnp.int32))
    params = nn.unbox(jax.jit(GLM(config).init)(jax.random.key(0), *inputs))["params"]
    decoder = make_decoder(GLM(config), params, {"sop": 1, "eop": 2}, ends=("eop",))
    decoder = dataclasses.replace(decoder, prompt_multiple=PROMPT_MULTIPLE)
    draw = np.random.default_rng(0)

    def run(tokens: int) -> tuple[float, float]:
        sampling = Sampling(max_blank_length=tokens, min_blank_length=tokens, beams=beams)
        prompts = [Prompt(draw.integers(3, WORDS, source).tolist(), [1]) for _ in range(articles)]
        started, cpu_started = time.perf_counter(), time.process_time()
        found = beam_search(decoder, prompts, sampling, num_texts=articles)
        seconds = time.perf_counter() - started, time.process_time() - cpu_started
        assert all(len(best.blank.ids) == tokens for ((best, *_),) in found)
        return seconds

    return run


def bart_run(articles: int, source: int, beams: int) -> Run:
    """The transformers library's BART-Base."""
    import torch
    from transformers import BartConfig, BartForConditionalGeneration

    config = BartConfig(
        vocab_size=BART_WORDS,
        d_model=HIDDEN,
        encoder_layers=BART_LAYERS,
        decoder_layers=BART_LAYERS,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=4 * HIDDEN,
        decoder_ffn_dim=4 * HIDDEN,
        max_position_embeddings=POSITIONS,
        forced_eos_token_id=None,
    )
    model: Any = BartForConditionalGeneration(config).eval()

    @torch.inference_mode()
    def run(tokens: int) -> tuple[float, float]:
        ids = torch.randint(3, BART_WORDS, (articles, source))
        started, cpu_started = time.perf_counter(), time.process_time()
        output = model.generate(
            ids, num_beams=beams, min_new_tokens=tokens, max_new_tokens=tokens, do_sample=False
        )
        seconds = time.perf_counter() - started, time.process_time() - cpu_started
        assert output.shape[1] >= tokens
        return seconds

    return run


if __name__ == "__main__":
    main()
