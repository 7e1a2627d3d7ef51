"""Tokenized shards: the unit in which a corpus is prepared, and done only once.

A shard's file appears when it is complete, so that a run that was killed resumes with the others.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Int8, Int64, Integer, UInt64

from glm_jax.data.prepare.splits import BY_DIGEST
from glm_jax.data.sources.document import Document, ReadOptions, ReadStats
from glm_jax.data.sources.filters import load_filter
from glm_jax.data.sources.inputs import Shard
from glm_jax.data.sources.pieces import read_piece
from glm_jax.data.store.store import id_type
from glm_jax.errors import RunError, UsageError
from glm_jax.io.files import file_exists, open_file, write_file
from glm_jax.tokenizer import Tokenizer, load_tokenizer

SUFFIX = ".npz"


@dataclass(frozen=True)
class ShardDocuments:
    """What is known of a shard's documents, without their tokens.

    Attributes:
      lengths: tokens of each, ENC and eos included.
      num_bytes: size of each as UTF-8.
      digests: hashes of complete documents, which decide their split.
      text_digests: two hashes of each text, equal only for equal texts.
      splits: index of the split of a stretch of a long document; BY_DIGEST elsewhere.
    """

    lengths: Int64[np.ndarray, "N"]
    num_bytes: Int64[np.ndarray, "N"]
    digests: UInt64[np.ndarray, "N"]
    text_digests: UInt64[np.ndarray, "N 2"]
    splits: Int8[np.ndarray, "N"]
    stats: ReadStats


@dataclass(frozen=True)
class Tokenizing:
    """Tokenizes shards into files; cheap to send to a worker.

    Attributes:
      folder: where the files go, a path or URL.
      tokenizer: folder of the tokenizer, a path or URL.
      filter: function that says which documents are kept, as ``filters.load_filter`` finds it.
    """

    folder: str
    tokenizer: str
    options: ReadOptions
    filter: str | None

    def __call__(self, numbered: tuple[str, Shard]) -> tuple[int, int]:
        """Write one shard, unless that was done before; gives its documents and bytes of text.

        Raises:
          UsageError: the text's key is missing, the filter fails, or the tokenizer is not sound.
        """
        name, shard = numbered
        location = f"{self.folder}/{name}{SUFFIX}"
        if (done := _intact(location)) is not None:
            return done
        stats = ReadStats()
        tokenizer = _loaded_tokenizer(self.tokenizer)
        columns = _tokenized(self._documents(shard, stats), tokenizer)
        columns["stats"] = np.frombuffer(json.dumps(dataclasses.asdict(stats)).encode(), np.uint8)
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **columns)
        write_file(location, content.getvalue())
        return len(columns["lengths"]), int(columns["num_bytes"].sum())

    def _documents(self, shard: Shard, stats: ReadStats) -> Iterator[Document]:
        keeps = None if self.filter is None else load_filter(self.filter)
        for piece in shard:
            for document in read_piece(piece, self.options, stats):
                if keeps is None or keeps(document):
                    yield document
                else:
                    stats.filtered_documents += 1


def read_documents(folder: str, name: str) -> ShardDocuments:
    """What a shard's file says of its documents.

    Raises:
      RunError: the file is missing or damaged.
    """
    with _opened(f"{folder}/{name}{SUFFIX}") as arrays:
        return ShardDocuments(
            lengths=arrays["lengths"],
            num_bytes=arrays["num_bytes"],
            digests=arrays["digests"],
            text_digests=arrays["text_digests"],
            splits=arrays["splits"],
            stats=ReadStats(**json.loads(arrays["stats"].tobytes())),
        )


def read_ids(folder: str, name: str) -> Integer[np.ndarray, "T"]:
    """The tokens of a shard's documents, one document after the other.

    Raises:
      RunError: the file is missing or damaged.
    """
    with _opened(f"{folder}/{name}{SUFFIX}") as arrays:
        return arrays["ids"]


def _tokenized(documents: Iterator[Document], tokenizer: Tokenizer) -> dict[str, np.ndarray]:
    enc, eos = tokenizer.special["ENC"], tokenizer.special["eos"]
    bound = tokenizer.padded_vocab_size
    ids: list[np.ndarray] = [np.empty(0, np.int64)]
    origins: list[str] = []
    num_bytes: list[int] = []
    digests: list[int] = []
    text_digests: list[bytes] = []
    splits: list[int] = []
    for document in documents:
        of_text = tokenizer.encode_text(document.text)
        ids.append(np.array([enc, *of_text, eos], np.int64))
        origins.append(document.origin)
        num_bytes.append(document.num_bytes)
        digests.append(int.from_bytes(document.digest, "big"))
        text = document.text.encode()
        text_digests.append(hashlib.blake2b(text, digest_size=16).digest())
        splits.append(BY_DIGEST if document.split is None else document.split)
    lengths = np.array([len(of_document) for of_document in ids[1:]], np.int64)
    all_ids = np.concatenate(ids)
    outside = np.flatnonzero((all_ids < 0) | (all_ids >= bound))
    if outside.size:
        document_number = int(np.searchsorted(np.cumsum(lengths), outside[0], "right"))
        raise UsageError(
            f"the tokenizer gave the id {all_ids[outside[0]]} at {origins[document_number]}, "
            f"outside its vocabulary of {bound}"
        )
    return {
        "ids": all_ids.astype(id_type(bound)),
        "lengths": lengths,
        "num_bytes": np.array(num_bytes, np.int64),
        "digests": np.array(digests, np.uint64),
        "text_digests": np.frombuffer(b"".join(text_digests), np.uint64).reshape(-1, 2),
        "splits": np.array(splits, np.int8),
    }


@lru_cache(maxsize=1)
def _loaded_tokenizer(folder: str) -> Tokenizer:
    """Loaded once in every worker, rather than sent along with every shard."""
    return load_tokenizer(folder)


def _intact(location: str) -> tuple[int, int] | None:
    """Documents and bytes of a shard whose file is there and can be read to its end."""
    if not file_exists(location):
        return None
    try:
        with _opened(location) as arrays:
            columns = {name: arrays[name] for name in arrays}  # checks all of them
        return len(columns["lengths"]), int(columns["num_bytes"].sum())
    except RunError:
        return None


@contextmanager
def _opened(location: str) -> Iterator[Mapping[str, np.ndarray]]:
    """The arrays in a shard's file; only what is asked for is read, and its checksum checked."""
    try:
        with open_file(location) as file, np.load(file) as arrays:
            yield arrays
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise RunError(f"{location} is damaged: {error}; run again to write a new one") from error
