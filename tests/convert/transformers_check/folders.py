"""Exported folders, and what glm_jax computes with them: the numbers that `check.py` compares."""

from __future__ import annotations

import dataclasses
import json
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np

import glm_jax
from glm_jax.convert.convert import convert
from glm_jax.convert.dimensions import Dimensions
from glm_jax.generate.prompt import encode_with_blank, make_prompt
from glm_jax.generate.settings import Sampling
from glm_jax.parity.inputs import random_inputs
from glm_jax.tokenizer import Tokenizer
from tests.convert.tiny import tiny_tensors, write_original

NEW_TOKENS = 12
CHOICES = ["good", "very bad"]


@dataclasses.dataclass(frozen=True)
class Case:
    """One folder: its tokenizer, and how its weights are stored."""

    name: str
    kind: str
    files: tuple[str, ...]
    options: dict[str, bool]
    dtype: str
    file_format: str
    sharded: bool


CASES = (
    Case("bert", "bert", ("bert-base-uncased-vocab.txt",), {}, "float32", "safetensors", False),
    Case(
        "gpt2",
        "gpt2",
        ("gpt2-vocab.json", "gpt2-merges.txt"),
        {"task_mask": True},
        "float16",
        "safetensors",
        True,
    ),
    Case(
        "roberta",
        "roberta",
        ("roberta-vocab.json", "roberta-merges.txt"),
        {},
        "bfloat16",
        "bin",
        False,
    ),
    Case(
        "chinese",
        "chinese",
        ("cog-pretrain.model",),
        {"task_mask": True, "fix_command_token": True},
        "float32",
        "bin",
        True,
    ),
    # Vocabularies of users' own, made by `trained_tokenizers`.
    Case("native", "sentencepiece", (), {}, "bfloat16", "safetensors", True),
    Case("byte_level", "huggingface", (), {}, "float16", "bin", False),
)
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


@contextmanager
def silent(_description: str, _num_bytes: int):
    """No progress is shown."""
    yield lambda _done: None


def export(case: Case, tokenizer: Tokenizer, work: Path) -> Path:
    """A folder with random weights of two layers, written by a conversion."""
    dimensions = Dimensions(
        vocab_size=tokenizer.padded_vocab_size,
        num_layers=2,
        hidden_size=32,
        position_rows=65,
        block_positions=True,
        relative_heads=None,
    )
    tensors = tiny_tensors(np.float32, dimensions=dimensions)
    for name, tensor in tensors.items():
        scale = 1 if name.endswith("layernorm.weight") else 0.3
        shift = 1 if name.endswith("layernorm.weight") else 0
        tensors[name] = (shift + 0.2 * scale * tensor).astype(DTYPES[case.dtype])
    original = write_original(work / f"{case.name}_original", tensors)
    convert(
        original,
        work / case.name,
        "huggingface",
        stages=silent,
        num_attention_heads=4,
        file_format=case.file_format,
        max_shard_bytes=100_000 if case.sharded else 1 << 30,
        tokenizer=tokenizer,
    )
    return work / case.name


def texts_of(case: Case) -> list[str]:
    """Texts with blanks, of different lengths."""
    if case.kind == "chinese":
        return ["中国的首都是 [MASK] 。", "今天天气很好,我们一起去 [MASK] 吧。"]
    return ["The capital of France is [MASK].", "It is a fine day, so we walk to the [MASK] today."]


def record(case: Case, tokenizer: Tokenizer, folder: Path, texts: list[str]) -> dict[str, Any]:
    """What glm_jax has for a folder; arrays go to expected.npz next to it.

    Args:
      case: of the folder.
      tokenizer: of the folder.
      folder: as exported.
      texts: whose ids are recorded.
    """
    model, params = glm_jax.load(folder)
    inputs = random_inputs(model.config, 3, 2, 24)
    arguments = (inputs.tokens, inputs.position_ids, inputs.attention_mask)
    with jax.default_matmul_precision("highest"):
        logits = np.asarray(model.apply({"params": params}, *arguments))
        gradients, labels = _gradients(model, params, inputs)
        fills = _fills(model, params, tokenizer, texts_of(case))
    arrays: dict[str, Any] = {
        "tokens": inputs.tokens,
        "position_ids": inputs.position_ids,
        "prefix_length": inputs.attention_mask,
        "logits": logits,
        "labels": labels,
        **{f"gradient/{name}": value for name, value in gradients.items()},
    }
    np.savez(folder.parent / f"{folder.name}.npz", **arrays)
    expected = {
        "texts": texts,
        "ids": [tokenizer.encode(text) for text in texts],
        "special": dict(tokenizer.special),
        "prompts": texts_of(case),
        "choices": CHOICES,
        "new_tokens": NEW_TOKENS,
        **fills,
    }
    (folder.parent / f"{folder.name}.json").write_text(json.dumps(expected))
    return expected


def _fills(model, params, tokenizer: Tokenizer, prompts: list[str]) -> dict[str, Any]:
    """Greedy and beam completions, and the scores of choices."""
    greedy = glm_jax.fill(model, params, tokenizer, prompts, Sampling(max_blank_length=NEW_TOKENS))
    searched = glm_jax.fill(
        model, params, tokenizer, prompts, Sampling(max_blank_length=NEW_TOKENS, beams=3)
    )
    scores = glm_jax.score(model, params, tokenizer, prompts, [CHOICES] * len(prompts))
    ids = [make_prompt(encode_with_blank(tokenizer, p), tokenizer.special).ids for p in prompts]
    return {
        "prompt_ids": ids,
        "greedy": [filled.blanks[0].ids for filled in greedy],
        "beams": [filled.blanks[0].ids for filled in searched],
        "choice_scores": [[sum(answer.blanks[0].log_probs) for answer in some] for some in scores],
    }


def _gradients(model, params, inputs) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The gradients of the mean loss over Part B, by original names, and the labels."""
    from tests.parity.state_dict import to_state

    length = inputs.tokens.shape[1]
    labels = np.where(
        np.arange(length) >= inputs.attention_mask[:, None],
        np.roll(inputs.tokens, -1, axis=1),
        -100,
    )
    labels[:, -1] = -100
    mask = labels >= 0

    def loss(params):
        logits = model.apply(
            {"params": params}, inputs.tokens, inputs.position_ids, inputs.attention_mask
        )
        log_probs = jax.nn.log_softmax(logits)
        chosen = np.where(mask, labels, 0)
        picked = jax.numpy.take_along_axis(log_probs, chosen[..., None], axis=-1)[..., 0]
        return -(picked * mask).sum() / mask.sum()

    return to_state(jax.grad(loss)(params), model.config.num_layers), labels
