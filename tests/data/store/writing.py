"""A token store from lists of ids, written without `glm-jax prepare`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from glm_jax.data.store import arrays
from glm_jax.data.store.store import TokenStore, id_type, open_store, write_metadata
from glm_jax.tokenizer.protocol import Tokenizer


def write_store(
    path: str | os.PathLike[str],
    documents: Mapping[str, Iterable[Sequence[int] | np.ndarray]],
    tokenizer: Tokenizer,
) -> TokenStore:
    """Write complete splits: `documents` maps a split's name to the ids of its documents."""
    location = os.fspath(path)
    tokenizer.save(f"{location}/tokenizer")
    splits = {}
    for split, of_split in documents.items():
        ids = [np.asarray(document, np.int64) for document in of_split]
        lengths = np.array([len(document) for document in ids], np.int64)
        tokens = np.concatenate([np.empty(0, np.int64), *ids])
        _write_array(f"{location}/{split}/tokens", tokens, id_type(tokenizer.padded_vocab_size))
        _write_array(f"{location}/{split}/document_starts", np.cumsum(lengths) - lengths, "int64")
        splits[split] = {"num_tokens": len(tokens), "num_documents": len(ids)}
    write_metadata(location, tokenizer, splits, sources=())
    return open_store(path)


def _write_array(location: str, values: np.ndarray, data_type: str) -> None:
    arrays.create_array(location, data_type, len(values))
    for start in range(0, len(values), arrays.SHARD_ELEMENTS):
        arrays.write_part(location, start, values[start : start + arrays.SHARD_ELEMENTS])
