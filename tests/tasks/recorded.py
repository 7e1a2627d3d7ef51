"""Readers of what the original made of the tasks' files: `f_finetune` of the recorded numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from glm_jax.tokenizer import Tokenizer, load_tokenizer

FOLDER = Path(__file__).parents[3] / "shared/goldens/f_finetune"
VOCABULARIES = Path(__file__).parents[3] / "shared/vocabs"

# The original's names of arrays, and ours.
NAMES = {
    "text": "tokens",
    "position": "position_ids",
    "position_id": "position_ids",
    "mask": "prefix_length",
    "attention_mask": "prefix_length",
    "target": "targets",
    "logit_mask": "loss_mask",
    "loss_mask": "loss_mask",
    "prompt_pos": "prompt_positions",
    "label": "label",
    "segment_id": "segment_ids",
    "dec_text": "answer_tokens",
    "dec_position": "answer_position_ids",
    "dec_target": "answer_targets",
    "dec_logit_mask": "answer_loss_mask",
}


def task_names() -> list[str]:
    """Tasks with recorded rows; X-Stance's languages can't be built by the original."""
    found = sorted(path.stem for path in FOLDER.glob("*.json"))
    return [name for name in found if "encoded" in _contents(name) and name != "xstance-de"]


def recorded_task(name: str) -> Any:
    return _contents(name)


@cache
def _contents(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text())


@cache
def tokenizer(name: str) -> Tokenizer:
    """The tokenizers that the rows were recorded with."""
    files = {
        "gpt2": ("gpt2-vocab.json", "gpt2-merges.txt"),
        "bert": ("bert-large-uncased-vocab.txt",),
        "roberta": ("roberta-vocab.json", "roberta-merges.txt"),
        "chinese": ("cog-pretrain.model",),
    }
    task_mask, fixed = name in ("gpt2", "chinese"), name == "chinese"
    paths = [VOCABULARIES / file for file in files[name]]
    return load_tokenizer(name, *paths, task_mask=task_mask, fix_command_token=fixed)


def options(arguments: Sequence[str]) -> dict[str, Any]:
    """Our options for the original's command line."""

    def number(flag: str) -> int:
        return int(arguments[arguments.index(flag) + 1]) if flag in arguments else 0

    return {
        "pattern": number("--pattern-id"),
        "multi_token": "--multi-token" in arguments,
        "segment_length": number("--segment-length"),
        "num_prompt_tokens": number("--num-prompt-tokens"),
        "prefix_prompt": number("--prefix-prompt"),
        "block_positions": "--no-block-position" not in arguments,
        "negatives": "--wsc-negative" in arguments,
    }


def differences(row: Mapping[str, Any], recorded: Mapping[str, Any]) -> Iterator[str]:
    """Names of the arrays that are not the recorded ones."""
    for name, expected in recorded.items():
        if name in NAMES and not np.array_equal(row[NAMES[name]], expected):
            yield name
