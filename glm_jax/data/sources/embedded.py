"""The embedded corpus: English prose that every installation of this package has on disk.

It is the help texts of Python (``pydoc_data.topics``) and the docstrings of the standard library,
numpy, scipy and jax, about 9 MB. Docstrings are collected from the sources without importing them.
Sessions of an interpreter are left out of both, and lines that were only wrapped are joined again.
"""

from __future__ import annotations

import ast
import importlib.util
import sysconfig
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from pydoc_data.topics import topics

from glm_jax.data.sources.document import Document, document_of, replace_surrogates
from glm_jax.data.sources.workers import ordered_map

PACKAGES = ("numpy", "scipy", "jax")

# Folders of the sources that are no part of the packages themselves, or that hold little prose.
_SKIPPED_FOLDERS = frozenset(
    {"__pycache__", "site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3"}
)
_FILES_PER_ITEM = 16

# A line this long was wrapped, and continues in the next.
_WRAPPED_LENGTH = 50


def embedded_documents(*, workers: int = 2) -> Iterator[Document]:
    """One document per help topic and per source file, always in the same order.

    Args:
      workers: number of processes that parse the sources.
    """
    for name in sorted(topics):
        yield document_of(prose(topics[name]), f"embedded:pydoc_data/topics.py:{name}")
    yield from docstring_documents(_source_folders(), workers=workers)


def prose(text: str) -> str:
    """The text without interpreter sessions, and with its wrapped lines joined.

    A line is joined to the one before if that was nearly full and as far indented.
    """
    lines: list[str] = []
    previous = ""
    in_session = False
    for line in map(str.rstrip, text.strip().split("\n")):
        in_session = line.lstrip().startswith(">>>") or (in_session and line != "")
        if in_session:
            continue
        if len(previous) >= _WRAPPED_LENGTH and _indentation(line) == _indentation(previous):
            lines[-1] += " " + line.lstrip()
        elif line or (lines and lines[-1]):
            lines.append(line)
        previous = line
    return "\n".join(lines).strip()


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip()) if line else -1


def docstring_documents(folders: Mapping[str, Path], *, workers: int) -> Iterator[Document]:
    """The docstrings of every source file below ``folders`` (by package), a document per file.

    They are cleaned of their indentation (see also ``prose``) and joined by empty lines, in the
    order of the source. One that occurred before is left out, and a file that doesn't
    parse has none.
    """
    files = [
        (f"embedded:{package}/{path.relative_to(folder).as_posix()}", path)
        for package, folder in folders.items()
        for path in _source_files(folder)
    ]
    items = [files[at : at + _FILES_PER_ITEM] for at in range(0, len(files), _FILES_PER_ITEM)]
    seen: set[str] = set()
    for found in ordered_map(_docstrings_of_files, items, workers):
        for origin, docstrings in found:
            new = [text for text in dict.fromkeys(docstrings) if text not in seen]
            seen.update(new)
            if new:
                yield document_of("\n\n".join(new), origin)


def source_docstrings() -> Iterator[tuple[str, str, str]]:
    """(package, source file, docstring) of all sources, always in the same order."""
    for package, folder in _source_folders().items():
        for path in _source_files(folder):
            for docstring in _docstrings(path):
                yield package, path.relative_to(folder).as_posix(), docstring


def _source_folders() -> dict[str, Path]:
    folders = {"python": Path(sysconfig.get_path("stdlib"))}
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            folders[package] = Path(spec.origin).parent
    return folders


def _source_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*.py")
        if _SKIPPED_FOLDERS.isdisjoint(path.relative_to(folder).parts)
    )


def _docstrings_of_files(files: list[tuple[str, Path]]) -> list[tuple[str, list[str]]]:
    return [(origin, _docstrings(path)) for origin, path in files]


def _docstrings(path: Path) -> list[str]:
    """The docstrings of a source file, in their order; none if it doesn't parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the sources' own faults
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return [replace_surrogates(text)[0] for text in _docstrings_below(tree)]


def _docstrings_below(node: ast.AST) -> Iterator[str]:
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        docstring = prose(ast.get_docstring(node) or "")
        if docstring:
            yield docstring
    for child in ast.iter_child_nodes(node):
        # Expressions hold no docstrings, and leaving them out makes this several times faster.
        if isinstance(child, (ast.stmt, ast.ExceptHandler, ast.match_case)):
            yield from _docstrings_below(child)
