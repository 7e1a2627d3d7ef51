"""Tokens per second of finetuning GLM-Base by cloze, and of BERT-base classification in PyTorch.

    pip install transformers torch
    python benchmarks/finetune.py

Both do what their users run: `glm-jax finetune` on a task with two labels, scored at the blank, and
`BertForSequenceClassification` of transformers with two labels. Both have 12 layers of width 768,
float32, 8 rows of 256 tokens without padding, AdamW with gradient clipping, as many threads, and
the dropout of their recipes (0.1 of hidden states and of attention probabilities; --dropout=0 for
none). Steps alternate in one process: the ratio of each pair counts, and their median. What
differs:
- GLM computes the last layer, and the logits of the vocabulary, at one position of each row
  (--last_layer=all for all positions of the layer); BERT computes all positions of its last layer,
  and has a pooler and a head of two labels.
- BERT runs as its library starts it, with PyTorch's fused attention and fused AdamW, not through
  torch.compile.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONFIGURATION = Path(__file__).parents[1] / "configs" / "runs" / "glm_base.gin"
LEARNING_RATE, WEIGHT_DECAY, CLIP_NORM = 1e-5, 0.1, 1.0

# Does one step and returns its loss.
Step = Callable[[], float]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=8, help="measured steps of each")
    parser.add_argument("--warmup_steps", type=int, default=2, help="steps before, not measured")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--attention", default="by_head", help="of GLM, see model.attention")
    parser.add_argument("--remat", default="minimal", help="of GLM, see model.remat")
    parser.add_argument("--last_layer", default="targets", help="see finetune.last_layer")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    # Both libraries take as many threads as there are cores to run on.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    os.environ["JAX_PLATFORMS"] = "cpu"
    from glm_jax.environment import keep_memory_between_steps

    keep_memory_between_steps()  # as the commands do; PyTorch's allocations profit as well

    shape = (arguments.batch_size, arguments.length)
    programs: dict[str, Step] = {
        "glm_jax, cloze": glm_step(*shape, arguments),
        "PyTorch BERT": bert_step(*shape, arguments.dropout, arguments.threads),
    }
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    losses: dict[str, float] = {}
    for number in range(arguments.warmup_steps + arguments.steps):
        for name, step in programs.items():
            started = time.perf_counter()
            losses[name] = step()
            if number >= arguments.warmup_steps:
                seconds[name].append(time.perf_counter() - started)

    tokens = arguments.batch_size * arguments.length
    print(f"{arguments.batch_size} x {arguments.length} tokens, {arguments.threads} threads")
    for name, measured in seconds.items():
        median = statistics.median(measured)
        print(
            f"{name:16} {median:7.3f} s (fastest {min(measured):.3f})  "
            f"{tokens / median:6.0f} tokens/s  loss {losses[name]:.3f}"
        )
    ours, theirs = seconds.values()
    ratios = [bert / glm for glm, bert in zip(ours, theirs, strict=True)]
    print(
        f"ratio of tokens/s {statistics.median(ratios):.2f} (pairs {min(ratios):.2f} to "
        f"{max(ratios):.2f}; of the fastest {min(theirs) / min(ours):.2f})"
    )


def glm_step(batch_size: int, length: int, arguments: argparse.Namespace) -> Step:
    """A step of the program that `glm-jax finetune` runs."""
    import jax
    import numpy as np

    from glm_jax.configure import read_configuration
    from glm_jax.finetune.model_scores import Scorer
    from glm_jax.finetune.program import make_finetune_program
    from glm_jax.model import GLM
    from glm_jax.parallel.batches import to_devices
    from glm_jax.parallel.mesh import MeshConfig, make_mesh
    from glm_jax.train.optimizer import OptimizerConfig
    from glm_jax.train.step import settings_on_devices

    places = ("embedding", "hidden", "attention")
    config = read_configuration(
        [CONFIGURATION],
        [
            "model.compute_dtype='float32'",
            f"model.remat={arguments.remat!r}",
            f"model.attention={arguments.attention!r}",
            *(f"model.{place}_dropout={arguments.dropout}" for place in places),
        ],
    )
    mesh = make_mesh(MeshConfig())
    optimizer = OptimizerConfig(
        learning_rate=LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
        clip_norm=CLIP_NORM,
        decay_steps=1000,
    )
    at_targets = arguments.last_layer == "targets"
    scorer = Scorer(GLM(config.model), last_layer_at_targets=at_targets)
    program = make_finetune_program(scorer, {}, optimizer, mesh)
    index, prefix = np.arange(length), length - 1
    # The position of the mask, and the first of the blank, for sop.
    positions = np.stack([np.where(index < prefix, index, 7), index >= prefix])
    rows = {
        "tokens": draw_tokens(batch_size, length, config.model.vocab_size),
        "targets": np.tile(np.asarray([2053, 2748], np.int32), (batch_size, 1)),
        "loss_mask": np.tile(index >= prefix, (batch_size, 1)).astype(np.float32),
        "position_ids": np.tile(positions, (batch_size, 1, 1)).astype(np.int32),
        "prefix_length": np.full(batch_size, prefix, np.int32),
        "label": np.arange(batch_size, dtype=np.int32) % 2,
        "weight": np.ones(batch_size, np.float32),
    }
    with jax.set_mesh(mesh):
        (batch,) = to_devices([rows], mesh, batch_size)
        state = program.initialize(0)
        settings = settings_on_devices(program.settings_of(0), mesh)

    def step() -> float:
        nonlocal state
        with jax.set_mesh(mesh):
            state, metrics = program.train_step(state, batch, settings, {})
            jax.block_until_ready(state)
        return float(metrics["loss"])

    return step


def bert_step(batch_size: int, length: int, dropout: float, threads: int) -> Step:
    """The same for a BERT-base with a head for two labels in PyTorch."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    # Two labels are the default.
    config = BertConfig(hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    model: Any = BertForSequenceClassification(config)
    model.train()
    optimizer = torch.optim.AdamW(
        [
            {
                "params": [value for value in model.parameters() if value.ndim > 1],
                "weight_decay": WEIGHT_DECAY,
            },
            {
                "params": [value for value in model.parameters() if value.ndim == 1],
                "weight_decay": 0.0,
            },
        ],
        lr=LEARNING_RATE,
        fused=True,
    )
    tokens = torch.tensor(draw_tokens(batch_size, length, config.vocab_size), dtype=torch.long)
    mask, labels = torch.ones_like(tokens), torch.arange(batch_size) % 2

    def step() -> float:
        loss = model(input_ids=tokens, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def draw_tokens(batch_size: int, length: int, vocab_size: int) -> Any:
    """Random tokens, int32 [B, L]."""
    import numpy as np

    return np.random.default_rng(0).integers(0, vocab_size, (batch_size, length), np.int32)


if __name__ == "__main__":
    main()
