"""The token store: documents as one long array of ids per split, read in random windows.

A store is a folder:

    metadata.json           what is inside; written last, so a store without it is not finished
    report.json report.png  how it was prepared (where ``prepare`` made it)
    tokenizer/              the tokenizer that made the ids
    SPLIT/tokens/           uint16 or uint32 ids, documents one after the other
    SPLIT/document_starts/  int64 index of every document's first token

The arrays are zarr3 in shards, with a checksum on every piece that is read.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tensorstore as ts
from jaxtyping import Int32, Int64, Integer

from glm_jax.data.store.arrays import (
    ArrayWriter,
    open_array,
    read_array,
    reason_of,
)
from glm_jax.errors import RunError, UsageError
from glm_jax.io.files import write_file
from glm_jax.io.paths import key_value_store, resolve_path
from glm_jax.tokenizer.protocol import Tokenizer

FORMAT_VERSION = 1
METADATA_FILE = "metadata.json"
SPLITS = ("train", "validation")

_CACHE_BYTES = 1 << 28


@dataclass(frozen=True)
class StoreMetadata:
    """What a store says about itself; ``splits`` maps a name to num_tokens and num_documents."""

    tokenizer_fingerprint: str
    special: Mapping[str, int]
    vocab_size: int
    padded_vocab_size: int
    data_type: str
    splits: Mapping[str, Mapping[str, int]]
    sources: Sequence[str]
    format_version: int = FORMAT_VERSION


class Split:
    """The tokens of one split, on disk."""

    def __init__(self, folder: str, counts: Mapping[str, int], context: ts.Context) -> None:
        """Open the arrays in ``folder``, a path or URL.

        Raises:
          RunError: an array is missing, damaged or of another length than ``counts`` says.
        """
        self.num_tokens = counts["num_tokens"]
        self.num_documents = counts["num_documents"]
        self._folder = folder
        self._tokens = open_array(f"{folder}/tokens", self.num_tokens, context)
        self._starts = open_array(f"{folder}/document_starts", self.num_documents, context)

    def read(self, starts: Int64[np.ndarray, "B"], length: int) -> Int32[np.ndarray, "B length"]:
        """The windows of ``length`` tokens that begin at ``starts``, in any order.

        Raises:
          UsageError: a window reaches outside the split.
          RunError: the stored data is damaged.
        """
        starts = np.asarray(starts)
        if starts.size == 0 or length == 0:
            return np.empty((starts.size, length), np.int32)
        if starts.min() < 0 or starts.max() + length > self.num_tokens:
            raise UsageError(
                f"a window of {length} tokens at {starts.min()} to {starts.max()} reaches outside "
                f"the {self.num_tokens} tokens of {self._folder}"
            )
        windows = [
            self._tokens[start : start + length].translate_to[0] for start in starts.tolist()
        ]
        # One read of all windows is faster than one by one, and than an index array.
        return read_array(ts.stack(windows), f"{self._folder}/tokens").astype(np.int32)

    def document_starts(self) -> Int64[np.ndarray, "N"]:
        """Index of the first token of every document, ascending; N is ``num_documents``."""
        return read_array(self._starts, f"{self._folder}/document_starts")


class TokenStore:
    """A finished store, open for reading; may be shared by threads."""

    def __init__(self, path: str, metadata: StoreMetadata) -> None:
        self.path = path
        self.metadata = metadata
        self._context = ts.Context({"cache_pool": {"total_bytes_limit": _CACHE_BYTES}})

    def split(self, name: str) -> Split:
        """Open one split.

        Raises:
          UsageError: the store has no such split.
          RunError: its arrays are missing or damaged.
        """
        if name not in self.metadata.splits:
            raise UsageError(
                f"token store {self.path} has no split {name!r}, "
                f"only {', '.join(self.metadata.splits)}"
            )
        return Split(f"{self.path}/{name}", self.metadata.splits[name], self._context)


def open_store(path: str | os.PathLike[str]) -> TokenStore:
    """Open a store, a folder or a URL such as ``gs://bucket/store``.

    Raises:
      UsageError: there is no finished store of this format.
      RunError: its metadata is damaged.
    """
    location = str(resolve_path(path, "data.store"))
    try:
        files = ts.KvStore.open(key_value_store(location)).result()
        content = files.read(METADATA_FILE).result()
    except ValueError as error:
        raise UsageError(f"token store {location} cannot be read: {reason_of(error)}") from error
    if content.state != "value":
        if not resolve_path(location).is_dir():
            raise UsageError(f"there is no token store at {location}")
        raise UsageError(f"{location} is not a token store, or one that was not finished")
    try:
        metadata = StoreMetadata(**json.loads(content.value))
    except (ValueError, TypeError) as error:
        raise RunError(f"{METADATA_FILE} of token store {location} is damaged") from error
    if metadata.format_version != FORMAT_VERSION:
        raise UsageError(
            f"token store {location} has format {metadata.format_version}, "
            f"this version reads format {FORMAT_VERSION}; prepare it again"
        )
    return TokenStore(location, metadata)


class StoreWriter:
    """Writes documents into a new store, shard by shard; ``finish`` makes it one."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        tokenizer: Tokenizer,
        *,
        splits: Sequence[str] = SPLITS,
        sources: Sequence[str] = (),
    ) -> None:
        """Begin a store in the empty or missing folder ``path``, with the tokenizer inside."""
        self._path = Path(resolve_path(path))
        self._tokenizer = tokenizer
        self._sources = list(sources)
        data_type = id_type(tokenizer.padded_vocab_size)
        tokenizer.save(self._path / "tokenizer")
        self._tokens = {
            name: ArrayWriter(self._path / name / "tokens", data_type) for name in splits
        }
        self._starts = {
            name: ArrayWriter(self._path / name / "document_starts", "int64") for name in splits
        }

    def append(self, split: str, ids: Sequence[int] | Integer[np.ndarray, "L"]) -> None:
        """Add one document: its ids as they are stored, ENC and eos included.

        Raises:
          UsageError: an id is outside the tokenizer's padded vocabulary.
          RunError: the disk failed.
        """
        ids = np.asarray(ids, np.int64)
        bound = self._tokenizer.padded_vocab_size
        outside = ids[(ids < 0) | (ids >= bound)]
        if outside.size:
            raise UsageError(f"token id {outside[0]} is outside the vocabulary of {bound}")
        tokens = self._tokens[split]
        self._starts[split].append(np.array([tokens.length], np.int64))
        tokens.append(ids)

    @property
    def splits(self) -> dict[str, dict[str, int]]:
        """Tokens and documents of every split so far."""
        return {
            name: {
                "num_tokens": self._tokens[name].length,
                "num_documents": self._starts[name].length,
            }
            for name in self._tokens
        }

    @property
    def num_documents(self) -> int:
        """Documents of all splits so far."""
        return sum(counts["num_documents"] for counts in self.splits.values())

    @property
    def num_tokens(self) -> int:
        """Tokens of all splits so far."""
        return sum(counts["num_tokens"] for counts in self.splits.values())

    def finish(self) -> StoreMetadata:
        """Write what is left, then the metadata.

        Raises:
          RunError: the disk failed.
        """
        for writer in (*self._tokens.values(), *self._starts.values()):
            writer.flush()
        return write_metadata(str(self._path), self._tokenizer, self.splits, self._sources)


def write_metadata(
    location: str,
    tokenizer: Tokenizer,
    splits: Mapping[str, Mapping[str, int]],
    sources: Sequence[str],
) -> StoreMetadata:
    """Make a store of finished arrays; ``location`` is a path or URL."""
    metadata = StoreMetadata(
        tokenizer_fingerprint=tokenizer.fingerprint,
        special=dict(tokenizer.special),
        vocab_size=tokenizer.vocab_size,
        padded_vocab_size=tokenizer.padded_vocab_size,
        data_type=id_type(tokenizer.padded_vocab_size),
        splits=splits,
        sources=list(sources),
    )
    content = json.dumps(asdict(metadata), indent=2) + "\n"
    write_file(f"{location}/{METADATA_FILE}", content.encode())
    return metadata


def id_type(padded_vocab_size: int) -> str:
    """The smallest type that holds every id."""
    return "uint16" if padded_vocab_size <= 1 << 16 else "uint32"


def write_store(
    path: str | os.PathLike[str],
    documents: Mapping[str, Iterable[Sequence[int]]],
    tokenizer: Tokenizer,
) -> TokenStore:
    """Write whole splits at once: ``documents`` maps a split's name to its documents' ids."""
    writer = StoreWriter(path, tokenizer, splits=tuple(documents))
    for split, documents_of_split in documents.items():
        for ids in documents_of_split:
            writer.append(split, ids)
    writer.finish()
    return open_store(path)
