"""A corpus, its tokenizer, and shards small enough for it to have many."""

import pytest

from glm_jax.data.sources import pieces
from glm_jax.data.store import arrays
from glm_jax.tokenizer import train_sentencepiece
from tests.data.prepare.stores import TEXTS, write_jsonl


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_sentencepiece(TEXTS, tmp_path_factory.mktemp("tokenizer"), vocab_size=330)


@pytest.fixture
def corpus(tmp_path):
    return write_jsonl(tmp_path / "corpus.jsonl", TEXTS)


@pytest.fixture
def small_shards(monkeypatch):
    """Many shards of text and of arrays, though there is little of them."""
    monkeypatch.setattr(pieces, "PIECE_BYTES", 1000)
    monkeypatch.setattr(arrays, "SHARD_ELEMENTS", 1024)
    monkeypatch.setattr(arrays, "CHUNK_ELEMENTS", 128)
