"""A task that every installation has on disk: which library a docstring comes from.

    python -m glm_jax.data.sources.docstring_task FOLDER

writes `train.jsonl`, `dev.jsonl` and `test.jsonl` of a custom task. Names that give the library
away are replaced, and a source file is in one split with all its docstrings.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator

from etils import epath

from glm_jax.data.sources.embedded import source_docstrings
from glm_jax.io.files import write_files
from glm_jax.io.paths import resolve_path

# Words that contain one of these, and short names of the libraries in code.
_TELLING = re.compile(r"\w*(?:python|numpy|scipy|jax|jnp|xla)\w*|\b(?:np|sp|lax)\b", re.IGNORECASE)
_REPLACEMENT = "it"
MIN_CHARACTERS = 60
MAX_CHARACTERS = 400
# Of 16 parts of the source files.
_PARTS = 16
_DEV_PARTS, _TEST_PARTS = range(2), range(2, 4)
# Examples of each library in a split.
MAX_EXAMPLES = {"train": 600, "dev": 150, "test": 150}


def docstring_rows(
    docstrings: Iterable[tuple[str, str, str]],
) -> Iterator[tuple[str, dict[str, str]]]:
    """(library, source file, docstring) -> (split, row), at most `MAX_EXAMPLES` of each library.

    A text that occurred before is left out.
    """
    seen: set[str] = set()
    counts: Counter[tuple[str, str]] = Counter()
    for library, file, docstring in docstrings:
        text = " ".join(_TELLING.sub(_REPLACEMENT, docstring).split())[:MAX_CHARACTERS]
        split = split_of(f"{library}/{file}")
        if (
            len(text) < MIN_CHARACTERS
            or text in seen
            or counts[library, split] >= (MAX_EXAMPLES[split])
        ):
            continue
        seen.add(text)
        counts[library, split] += 1
        yield split, {"docstring": text, "library": library}


def split_of(file: str) -> str:
    """The split of all docstrings of a source file."""
    part = hashlib.sha256(file.encode()).digest()[0] % _PARTS
    return "dev" if part in _DEV_PARTS else "test" if part in _TEST_PARTS else "train"


def write_docstring_task(folder: epath.Path) -> dict[str, int]:
    """Writes the files of the task; returns the number of examples in each split."""
    lines: dict[str, list[str]] = {split: [] for split in MAX_EXAMPLES}
    # In an order that mixes the files of a library, since only the first examples are taken.
    found = sorted(
        source_docstrings(), key=lambda item: hashlib.sha256(repr(item).encode()).digest()
    )
    for split, row in docstring_rows(found):
        lines[split].append(json.dumps(row, ensure_ascii=False))
    folder.mkdir(parents=True, exist_ok=True)
    write_files(
        folder,
        {f"{split}.jsonl": ("\n".join(rows) + "\n").encode() for split, rows in lines.items()},
    )
    return {split: len(rows) for split, rows in lines.items()}


if __name__ == "__main__":
    counts = write_docstring_task(resolve_path(sys.argv[1], "FOLDER"))
    print(", ".join(f"{count:,} {split}" for split, count in counts.items()), "docstrings")
