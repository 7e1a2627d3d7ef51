"""Every table, encoding and decoding recorded from the original's tokenizers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glm_jax.tokenizer import load_tokenizer
from glm_jax.tokenizer.protocol import Tokenizer

# The vocabulary files of every kind, in the folder of original vocabularies.
FILES = {
    "bert": ["bert-large-uncased-vocab.txt"],
    "gpt2": ["gpt2-vocab.json", "gpt2-merges.txt"],
    "roberta": ["roberta-vocab.json", "roberta-merges.txt"],
    "chinese": ["cog-pretrain.model"],
}


def from_command_line(arguments: list[str], vocabularies: Path) -> Tokenizer:
    """Our tokenizer for the original's command line."""

    def value(flag: str, default: str = "") -> str:
        return arguments[arguments.index(flag) + 1] if flag in arguments else default

    kinds = {"BertWordPieceTokenizer": "bert", "ChineseSPTokenizer": "chinese"}
    kind = kinds.get(value("--tokenizer-type"), value("--tokenizer-model-type", "gpt2"))
    files = [vocabularies / name for name in FILES[kind]]
    positions = int(value("--max-position-embeddings", "1"))
    return load_tokenizer(
        kind,
        *files,
        task_mask="--task-mask" in arguments,
        decoder_mask="--block-mask-prob" in arguments or "--context-mask-ratio" in arguments,
        fix_command_token="--fix-command-token" in arguments,
        sentinels=positions - 1 if "--sentinel-token" in arguments else 0,
        blocks="--block-lm" in arguments,
    )


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
