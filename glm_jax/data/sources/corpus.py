"""Documents out of folders, files, buckets, TFDS data sets and the embedded corpus."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from glm_jax.data.sources.document import MAXIMUM_CHARACTERS, Document, ReadOptions, ReadStats
from glm_jax.data.sources.inputs import Input, find_inputs, shards_of
from glm_jax.data.sources.pieces import read_piece
from glm_jax.errors import UsageError


def documents(
    sources: Iterable[str | os.PathLike[str]],
    *,
    text_key: str = "text",
    stats: ReadStats | None = None,
    maximum_characters: int = MAXIMUM_CHARACTERS,
) -> Iterator[Document]:
    """All documents of ``sources``, always in the same order, one by one.

    Args:
      sources: each a file (.txt is one document, .jsonl, .ndjson and .json one a line; also .gz,
        .bz2, .xz and .zst; .parquet is one a row), a folder of such files at any depth (hidden ones
        left out), a glob pattern, a URL of one of these, ``tfds:NAME[/CONFIG][#SPLIT]`` (split
        "train" by default) or ``embedded``. A file that is found twice is read once.
      text_key: key of the text in .jsonl, Parquet and TFDS; a TFDS data set with one text feature
        needs none.
      stats: counts what was skipped, replaced, split or ignored.
      maximum_characters: longer documents are split, at the end of a paragraph if possible.

    Raises:
      UsageError: immediately, a source that matches nothing, a data set that is not prepared or a
        number out of range; while reading, a .jsonl file in which no line has ``text_key`` (of a
        large one, no line of the first 8 MiB).
    """
    options = checked_options(text_key, maximum_characters)
    stats = ReadStats() if stats is None else stats
    return _documents(find_inputs(sources, text_key, stats), options, stats)


def checked_options(text_key: str, maximum_characters: int) -> ReadOptions:
    """How to read, if that is possible.

    Raises:
      UsageError: a number out of range.
    """
    if maximum_characters < 1:
        raise UsageError(f"maximum_characters is {maximum_characters}, expected at least 1")
    return ReadOptions(text_key, maximum_characters)


def _documents(inputs: list[Input], options: ReadOptions, stats: ReadStats) -> Iterator[Document]:
    for input in inputs:
        for shard in shards_of(input, options):
            for piece in shard:
                yield from read_piece(piece, options, stats)
