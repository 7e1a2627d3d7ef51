"""A small network with positions for articles, and articles with their summaries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from glm_jax.convert.dimensions import Dimensions
from glm_jax.convert.layouts.native_writer import NativeDestination
from glm_jax.convert.transfer import checksum
from glm_jax.convert.weights import SourceMetadata, TensorInfo
from tests.serve.tiny_checkpoint import byte_tokenizer

POSITIONS = 768
MODEL = {
    "vocab_size": 384,
    "num_layers": 1,
    "hidden_size": 32,
    "num_attention_heads": 2,
    "max_sequence_length": POSITIONS,
}
LETTERS = b"abcdefghijklmnopqrstuvwxyz "
# Added to the logit of the end of an output: more would end all at once, less none.
END_LOGIT = 5.0


def write_long_checkpoint(folder: Path) -> Path:
    """Random weights that write letters, and end their outputs after different numbers of them."""
    draw, made = np.random.default_rng(7), {}
    dimensions = Dimensions(
        vocab_size=384,
        num_layers=1,
        hidden_size=32,
        position_rows=POSITIONS + 1,
        block_positions=True,
        relative_heads=None,
    )
    for name, shape in dimensions.shapes().items():
        value = draw.normal(size=shape, scale=0.25).astype(np.float32)
        if name.endswith("bias"):
            value *= 0
        elif "layernorm" in name:
            value = np.ones(shape, np.float32)
        made[name] = value
    wanted = np.zeros((384, 1), np.float32)
    wanted[[*LETTERS, byte_tokenizer().special["eop"]]] = 2
    made["word_embeddings.weight"] *= wanted
    made["transformer.final_layernorm.bias"] = END_LOGIT * only_for(
        made["word_embeddings.weight"], byte_tokenizer().special["eop"], list(LETTERS)
    )
    infos = {name: TensorInfo(tensor.shape, tensor.dtype) for name, tensor in made.items()}
    checksums = {name: checksum(tensor) for name, tensor in made.items()}
    metadata = SourceMetadata(num_attention_heads=2, iteration=1)
    destination = NativeDestination(folder, list(infos), infos, metadata, MODEL, checksums)
    for name in destination.order:
        destination.write(name, made[name])
    destination.finish()
    byte_tokenizer().save(folder / "tokenizer")
    return folder


def only_for(
    embeddings: Float[np.ndarray, "V D"], token: int, others: Sequence[int]
) -> Float[np.ndarray, "D"]:
    """A vector whose product with the embedding of `token` is 1, and 0 with those of others."""
    along, _ = np.linalg.qr(embeddings[list(others)].T)
    vector = embeddings[token] - along @ (along.T @ embeddings[token])
    return vector / (vector @ embeddings[token])


def write_articles(folder: Path, count: int, length: int) -> Path:
    """Articles of about `length` bytes, each a token, and short summaries."""
    draw = np.random.default_rng(11)
    folder.mkdir()

    def lines(shortest: int, longest: int) -> str:
        sizes = draw.integers(shortest, longest + 1, count)
        texts = (bytes(draw.choice(list(LETTERS[:-1]), size).tolist()).decode() for size in sizes)
        return "".join(f"{text}\n" for text in texts)

    (folder / "val.source").write_text(lines(length - length // 20, length))
    (folder / "val.target").write_text(lines(5, 30))
    return folder
