"""What each input of text understands of the file at a path; see `test_text_inputs.py`."""

from __future__ import annotations

import argparse
import asyncio
import io
import json
from pathlib import Path

import pytest
from starlette.requests import Request

from glm_jax.cli.fill import read_texts
from glm_jax.configure import read_configuration
from glm_jax.data.batches.cloze_lines import read_examples
from glm_jax.data.sources.corpus import documents
from glm_jax.data.sources.document import ReadStats
from glm_jax.serve.requests import parse_fill, read_json
from glm_jax.serve.settings import ServeSettings
from glm_jax.tokenizer.byte_pair import BytePairModel
from glm_jax.tokenizer.hugging_face import HuggingFaceModel
from glm_jax.tokenizer.word_piece import WordPieceModel


class Recorder:
    """A tokenizer that keeps the contexts it is given."""

    def __init__(self) -> None:
        self.special = {"MASK": 1, "ENC": 2, "eos": 3}
        self.texts: list[str] = []

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        self.texts += texts
        return [[self.special["MASK"]] for _ in texts]

    def encode_text(self, text: str) -> list[int]:
        return [9]


def corpus(path: Path) -> list:
    stats = ReadStats()
    found: list = [document.text for document in documents([path], stats=stats)]
    return found + [line.replace(str(path), "FILE") for line in stats.lines()]


def supervised(path: Path) -> list[str]:
    recorder = Recorder()
    list(read_examples(str(path), recorder, 32))  # pyright: ignore[reportArgumentType]
    return recorder.texts


def fill_file(path: Path) -> dict[int, str] | None:
    return read_texts(argparse.Namespace(file=path, texts=[]))


def fill_standard_input(path: Path) -> dict[int, str] | None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes()), "latin-1"))
        return read_texts(argparse.Namespace(file=None, texts=[]))


def gin(path: Path) -> str:
    return Path(read_configuration([path]).data.store).name


def http(path: Path) -> str:
    headers = [(b"content-type", b"application/json")]

    async def receive():
        return {"type": "http.request", "body": path.read_bytes()}

    request = Request({"type": "http", "headers": headers}, receive)
    body = asyncio.run(read_json(request, 1 << 16))
    return parse_fill(body, ServeSettings()).text


def word_pieces(path: Path) -> list[str]:
    model = WordPieceModel(path.read_bytes(), lowercase=False)
    return [model.piece(id) for id in range(2, model.size)]


def byte_pairs(path: Path) -> list[str]:
    return list(BytePairModel(path.read_bytes(), b"").piece_ids)[1:]


def merges(path: Path) -> list[int]:
    vocabulary = {"a": 0, "b": 1, "ab": 2, "\u2028": 3, "\x85": 4, "\u2028\x85": 5}
    return BytePairModel(json.dumps(vocabulary).encode(), path.read_bytes()).encode("ab")


def tokenizer_json(path: Path) -> list[str]:
    return sorted(HuggingFaceModel(path.read_bytes()).piece_ids)[1:]
