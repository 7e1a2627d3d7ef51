"""Which documents are the first with their text, in memory that doesn't grow with their number.

The hashes are sorted on disk: divided by their value into files, each of which fits into memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt64

# Number of documents sorted in memory; 24 bytes of a file each.
DOCUMENTS_AT_ONCE = 1 << 21


def first_occurrences(
    digests: Iterable[UInt64[np.ndarray, "N 2"]], num_documents: int, folder: Path
) -> Bool[np.ndarray, "D"]:
    """For every document, whether no document before it has the same digest.

    Args:
      digests: of all documents in order, in blocks.
      num_documents: D, their number.
      folder: empty folder for files of 25 bytes a document in all.

    Returns:
      An array that lives in a file in ``folder``.
    """
    first = np.memmap(folder / "first", bool, "w+", shape=(max(num_documents, 1),))
    num_parts = -(-num_documents // DOCUMENTS_AT_ONCE)
    offset = 0
    for block in digests:
        number = np.arange(offset, offset + len(block), dtype=np.uint64)
        offset += len(block)
        records = np.column_stack([block, number])
        part = block[:, 0] % np.uint64(max(num_parts, 1))
        for index in np.unique(part):
            with open(folder / f"part-{index}", "ab") as file:
                file.write(np.ascontiguousarray(records[part == index]).tobytes())
    for index in range(num_parts):
        path = folder / f"part-{index}"
        if not path.exists():
            continue
        records = np.fromfile(path, np.uint64).reshape(-1, 3)
        path.unlink()
        # By digest, and by number among equal ones.
        records = records[np.lexsort((records[:, 2], records[:, 1], records[:, 0]))]
        new = np.ones(len(records), bool)
        new[1:] = np.any(records[1:, :2] != records[:-1, :2], axis=1)
        first[records[:, 2].astype(np.int64)] = new
    return first[:num_documents]
