"""Every table, encoding and decoding recorded from the original's tokenizers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glm_jax.tokenizer.protocol import Tokenizer
from tests.tokenizer.recorded_tokenizers import from_command_line


def pytest_generate_tests(metafunc):
    folder = Path(__file__).parents[3] / "shared/goldens/e_tokenizers"
    names = sorted(path.stem for path in folder.glob("*.json") if path.stem != "texts")
    metafunc.parametrize("name", names or ["none"])


@pytest.fixture
def recorded(shared: Path, name: str) -> dict:
    return json.loads((shared / "goldens/e_tokenizers" / f"{name}.json").read_text())


@pytest.fixture
def tokenizer(shared: Path, recorded: dict) -> Tokenizer:
    arguments = recorded["args"]
    arguments = arguments.split() if isinstance(arguments, str) else arguments
    return from_command_line(arguments, shared / "vocabs")


def test_tables_are_the_originals(recorded, tokenizer):
    assert dict(tokenizer.special) == recorded["name_to_id"]
    assert tokenizer.vocab_size == recorded["num_tokens"]
    assert tokenizer.padded_vocab_size == recorded["padded_vocab_size"]
    assert tokenizer.special["eos"] == recorded["eod_token"]


def test_encodings_and_decodings_are_the_originals(shared, recorded, tokenizer):
    texts = json.loads((shared / "goldens/e_tokenizers/texts.json").read_text())
    encoded = tokenizer.encode_batch(texts)
    for text, ids, expected in zip(texts, encoded, recorded["encode"], strict=True):
        assert ids == expected["ids"], text
        assert tokenizer.encode(text) == ids
        assert tokenizer.decode(ids) == expected["decoded"], text
    for expected in recorded["decode_random"]:
        assert tokenizer.decode(expected["ids"]) == expected["decoded"]
        assert [tokenizer.piece(id) for id in expected["ids"]] == expected["tokens"]
