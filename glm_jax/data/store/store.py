"""The token store: documents as one long array of ids per split, read in random windows.

A store is a folder:

    metadata.json           sizes and vocabulary; written last: a store without it is incomplete
    report.json report.png  how it was prepared (where ``prepare`` made it)
    tokenizer/              the tokenizer that made the ids
    SPLIT/tokens/           uint16 or uint32 ids, documents one after the other
    SPLIT/document_starts/  int64 index of every document's first token

The arrays are zarr3 in shards, with a checksum on every piece that is read.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from tempfile import TemporaryDirectory

import numpy as np
import tensorstore as ts
from jaxtyping import Int32, Int64

from glm_jax.data.store.arrays import open_array, read_array, reason_of
from glm_jax.errors import RunError, UsageError
from glm_jax.io.files import copy_folder, file_exists, write_file
from glm_jax.io.paths import is_tensorstore_location, key_value_store, resolve_path
from glm_jax.tokenizer.protocol import Tokenizer

FORMAT_VERSION = 1
METADATA_FILE = "metadata.json"

_CACHE_BYTES = 1 << 28


@dataclass(frozen=True)
class StoreMetadata:
    """Description of a store; ``splits`` maps a name to num_tokens and num_documents."""

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

    def __init__(
        self,
        folder: str,
        counts: Mapping[str, int],
        context: ts.Context,
        copy: TemporaryDirectory[str] | None = None,
    ) -> None:
        """Open the arrays in ``folder``, a path or URL; ``copy`` lives as long as this object.

        Raises:
          RunError: an array is missing, damaged or of another length than ``counts`` says.
        """
        self.num_tokens = counts["num_tokens"]
        self.num_documents = counts["num_documents"]
        self._folder = folder
        self._copy = copy
        self._tokens = open_array(f"{folder}/tokens", self.num_tokens, context)
        self._starts = open_array(f"{folder}/document_starts", self.num_documents, context)

    def read(self, starts: Int64[np.ndarray, "B"], length: int) -> Int32[np.ndarray, "B length"]:
        """The windows of ``length`` tokens that start at ``starts``, in any order.

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

    def __init__(
        self, path: str, metadata: StoreMetadata, copy: TemporaryDirectory[str] | None = None
    ) -> None:
        """Args:
        path: what messages call it, a path or URL.
        metadata: its description.
        copy: a local copy to read, which lives as long as this object.
        """
        self.path = path
        self.metadata = metadata
        self._copy = copy  # kept: it is removed with the last object that reads it
        self._folder = path if copy is None else copy.name
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
        counts = self.metadata.splits[name]
        return Split(f"{self._folder}/{name}", counts, self._context, self._copy)


def open_store(path: str | os.PathLike[str]) -> TokenStore:
    """Open a store, a folder or a URL such as ``gs://bucket/store``.

    One at a URL that TensorStore can't read is downloaded into a temporary folder.

    Raises:
      UsageError: there is no finished store of this format.
      RunError: its metadata is damaged.
    """
    location = str(resolve_path(path, "data.store"))
    copy = None if is_tensorstore_location(location) else _downloaded(location)
    try:
        files = ts.KvStore.open(key_value_store(copy.name if copy else location)).result()
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
    return TokenStore(location, metadata, copy)


def _downloaded(location: str) -> TemporaryDirectory[str]:
    """A temporary folder with what is at a URL, if anything.

    Raises:
      UsageError: it can't be read.
    """
    copy = TemporaryDirectory(prefix="glm-jax-store-")
    try:
        if file_exists(f"{location}/{METADATA_FILE}"):
            copy_folder(location, copy.name)
    except Exception as error:  # each package behind fsspec fails in its own way
        copy.cleanup()
        raise UsageError(f"token store {location} cannot be read: {error}") from error
    return copy


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
