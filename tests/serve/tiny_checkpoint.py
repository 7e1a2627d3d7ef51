"""A random network whose every token depends on all it sees, and a tokenizer of single bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from glm_jax.convert.dimensions import Dimensions
from glm_jax.convert.layouts.native_writer import NativeDestination
from glm_jax.convert.transfer import checksum
from glm_jax.convert.weights import SourceMetadata, TensorInfo
from glm_jax.tokenizer import Tokenizer
from glm_jax.tokenizer.load import SpecialTokenOptions, make_tokenizer

MOST_TOKENS = 64
MODEL = {
    "vocab_size": 384,
    "num_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 2,
    "max_sequence_length": MOST_TOKENS,
}
DIMENSIONS = Dimensions(
    vocab_size=384,
    num_layers=2,
    hidden_size=32,
    position_rows=MOST_TOKENS + 1,
    block_positions=True,
    relative_heads=None,
)


def byte_tokenizer() -> Tokenizer:
    """A byte is a token, so that most characters beyond ASCII have several."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    names = {byte: chr(byte) for byte in printable}
    names |= {byte: chr(256 + place) for place, byte in enumerate(others)}
    vocabulary = {names[byte]: byte for byte in range(256)} | {"<|endoftext|>": 256}
    files = [json.dumps(vocabulary).encode(), b"#version: 0.2\n"]
    return make_tokenizer("gpt2", files, SpecialTokenOptions(task_mask=True))


def tensors(scale: float = 0.25) -> Mapping[str, np.ndarray]:
    """Random values that make the network write letters, and end its blanks."""
    random = np.random.default_rng(3)
    made = {}
    for name, shape in DIMENSIONS.shapes().items():
        value = random.normal(size=shape, scale=scale).astype(np.float32)
        if name.endswith("bias"):
            value *= 0
        elif "layernorm" in name:
            value = np.ones(shape, np.float32)
        made[name] = value
    wanted = np.zeros((DIMENSIONS.vocab_size, 1), np.float32)
    wanted[[*b"abcdefghijklmnopqrstuvwxyz ", *"ü".encode(), byte_tokenizer().special["eop"]]] = 2
    made["word_embeddings.weight"] *= wanted
    return made


def write_checkpoint(folder: Path) -> Path:
    """The checkpoint, with its tokenizer, in a new folder."""
    made = tensors()
    infos = {name: TensorInfo(tensor.shape, tensor.dtype) for name, tensor in made.items()}
    checksums = {name: checksum(tensor) for name, tensor in made.items()}
    facts = SourceMetadata(num_attention_heads=2, iteration=1)
    destination = NativeDestination(folder, list(infos), infos, facts, MODEL, checksums)
    for name in destination.order:
        destination.write(name, made[name])
    destination.finish()
    byte_tokenizer().save(folder / "tokenizer")
    return folder
