"""Tables, encodings and decodings that the original's tokenizers recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from glm_jax.tokenizer.protocol import Tokenizer
from tests.parity.rows import Row, guarded
from tests.tokenizer.recorded_tokenizers import from_command_line

FOLDER = "e_tokenizers"


def tokenizer_rows(goldens: Path, vocabularies: Path) -> Iterator[Row]:
    """What every recorded tokenizer does otherwise.

    Args:
      goldens: folder of the recorded numbers.
      vocabularies: folder of the original's vocabulary files.
    """
    folder = goldens / FOLDER
    names = sorted(path.stem for path in folder.glob("*.json") if path.stem != "texts")
    for name in names:
        golden = f"{FOLDER}/{name}"
        yield from guarded(golden, partial(_variant_rows, folder, name, vocabularies))


def _variant_rows(folder: Path, name: str, vocabularies: Path) -> Iterator[Row]:
    recorded = json.loads((folder / f"{name}.json").read_text())
    texts = json.loads((folder / "texts.json").read_text())
    arguments = recorded["args"]
    arguments = arguments.split() if isinstance(arguments, str) else arguments
    tokenizer = from_command_line(arguments, vocabularies)
    golden = f"{FOLDER}/{name}"
    yield Row(
        golden, "special tokens and sizes that differ", 0.0, table_differences(recorded, tokenizer)
    )
    different = encoding_differences(recorded, texts, tokenizer)
    yield Row(golden, f"texts encoded or decoded otherwise, of {len(texts)}", 0.0, different)
    cases = recorded["decode_random"]
    different = sum(
        tokenizer.decode(case["ids"]) != case["decoded"]
        or [tokenizer.piece(id) for id in case["ids"]] != case["tokens"]
        for case in cases
    )
    quantity = f"random ids decoded otherwise, of {len(cases)}"
    yield Row(golden, quantity, 0.0, different if cases else float("inf"))


def table_differences(recorded: Mapping[str, Any], tokenizer: Tokenizer) -> int:
    """How many special tokens have another id, and how many sizes differ."""
    ours, theirs = dict(tokenizer.special), recorded["name_to_id"]
    sizes = {
        "num_tokens": tokenizer.vocab_size,
        "padded_vocab_size": tokenizer.padded_vocab_size,
        "eod_token": tokenizer.special["eos"],
    }
    tokens = sum(ours.get(name) != theirs.get(name) for name in ours.keys() | theirs.keys())
    return tokens + sum(recorded[name] != size for name, size in sizes.items())


def encoding_differences(
    recorded: Mapping[str, Any], texts: Sequence[str], tokenizer: Tokenizer
) -> float:
    """How many texts are encoded or decoded otherwise; infinite where none or others are."""
    if not texts or len(texts) != len(recorded["encode"]):
        return float("inf")
    together = tokenizer.encode_batch(texts)
    return sum(
        ids != case["ids"]
        or tokenizer.encode(text) != ids
        or tokenizer.decode(ids) != case["decoded"]
        for text, ids, case in zip(texts, together, recorded["encode"], strict=True)
    )
