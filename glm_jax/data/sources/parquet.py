"""Texts out of Parquet files, a few rows in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from glm_jax.data.sources.compression import BrokenFileError
from glm_jax.data.sources.document import Document, ReadOptions, ReadStats, documents_of
from glm_jax.errors import UsageError
from glm_jax.io.files import open_file

_ROWS_AT_ONCE = 256


def row_group_bytes(location: str, text_key: str) -> list[int]:
    """How many bytes of text every row group of a file holds, about.

    Raises:
      UsageError: pyarrow is not installed, or there is no column of text named ``text_key``.
      BrokenFileError: it can't be read as a Parquet file.
    """
    with _opened(location) as file:
        types = {field.name: field.type for field in file.schema_arrow}
        if text_key not in types or not _holds_text(types[text_key]):
            found = ", ".join(f"{name} ({kind})" for name, kind in types.items())
            raise UsageError(
                f"{location} has no column of text named {text_key!r}; columns found: {found}"
            )
        metadata = file.metadata
        paths = [metadata.schema.column(number).path for number in range(metadata.num_columns)]
        column = paths.index(text_key)
        groups = [metadata.row_group(index) for index in range(file.num_row_groups)]
        return [group.column(column).total_uncompressed_size for group in groups]


def row_group_documents(
    location: str, index: int, options: ReadOptions, stats: ReadStats
) -> Iterator[Document]:
    """The documents of one row group; ``stats`` are counted up."""
    key = options.text_key
    number = 0
    try:
        with _opened(location) as file:
            for batch in file.iter_batches(_ROWS_AT_ONCE, row_groups=[index], columns=[key]):
                for text in _texts(batch.column(0)):
                    origin = f"{location}:{index}:{number}"
                    number += 1
                    if text is None:
                        stats.lines_without_text += 1
                    else:
                        yield from documents_of([text], origin, options, stats)
    except BrokenFileError as error:
        stats.unreadable_files.append(f"{location} ({error})")


def _holds_text(kind: Any) -> bool:
    """Whether a column's values are text, or bytes, which some writers store text as."""
    import pyarrow

    values = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    return str(values) in (
        "string", "large_string", "string_view", "binary", "large_binary", "binary_view",
    )  # fmt: skip


def _texts(column: Any) -> Iterator[str | None]:
    """The values of a column; bad UTF-8 in them becomes lone surrogates."""
    import pyarrow

    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    for value in column.cast(pyarrow.large_binary()).to_pylist():
        yield None if value is None else value.decode("utf-8", errors="surrogateescape")


@contextmanager
def _opened(location: str) -> Iterator[Any]:
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise UsageError(
            f"{location} needs the Python package pyarrow, which is not installed"
        ) from error
    try:
        with open_file(location) as file:
            yield ParquetFile(file)
    except (OSError, pyarrow.ArrowException) as error:
        raise BrokenFileError(" ".join(str(error).split())) from error
