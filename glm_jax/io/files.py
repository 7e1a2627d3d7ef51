"""Files by path or URL: finding, reading and writing them, whatever they are stored on.

Paths are handled by Python itself; URLs such as ``gs://bucket/file`` by fsspec and the package that
it needs for their kind.
"""

from __future__ import annotations

import glob
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from glm_jax.errors import UsageError


@dataclass(frozen=True)
class SourceFile:
    """A file to read: its path or URL, its size in bytes, and what changes when it changes."""

    location: str
    size: int
    stamp: str


def is_url(location: str) -> bool:
    """Whether ``location`` is a URL rather than a path."""
    return "://" in location


def find_files(source: str, suffixes: tuple[str, ...]) -> list[SourceFile]:
    """The files with these suffixes that a path, URL or glob pattern stands for, sorted.

    A folder stands for all of them at any depth, without hidden ones.

    Raises:
      UsageError: there are none, or no package that reads this kind of URL is installed.
    """
    found = _remote_files(source) if is_url(source) else _local_files(source)
    found = [file for file in found if file.location.endswith(suffixes)]
    if not found:
        raise UsageError(f"source {source!r} matches no file that ends in {', '.join(suffixes)}")
    return found


def _local_files(source: str) -> list[SourceFile]:
    path = Path(source)
    if path.is_dir():
        paths = [file for file in path.rglob("*") if not _is_hidden(file.relative_to(path).parts)]
    else:
        paths = [path] if path.is_file() else [Path(n) for n in glob.glob(source, recursive=True)]
    return [_local_file(path) for path in sorted(paths) if path.is_file()]


def _local_file(path: Path) -> SourceFile:
    status = path.stat()
    return SourceFile(str(path), status.st_size, str(status.st_mtime_ns))


def _remote_files(source: str) -> list[SourceFile]:
    system, path = _file_system(source)
    with _failing_as(f"source {source!r} cannot be listed"):
        if system.isdir(path):
            names = [
                name
                for name in system.find(path)
                if not _is_hidden(tuple(name.removeprefix(path.rstrip("/")).split("/")))
            ]
        else:
            names = [path] if system.isfile(path) else system.glob(path)
            names = [name for name in names if system.isfile(name)]
        return [
            SourceFile(system.unstrip_protocol(name), system.size(name), system.ukey(name))
            for name in sorted(names)
        ]


def _is_hidden(parts: tuple[str, ...]) -> bool:
    return any(part.startswith(".") for part in parts)


def _file_system(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path there.

    Raises:
      UsageError: no package that reads this kind of URL is installed.
    """
    # Imported here because paths don't need it.
    from fsspec.core import url_to_fs

    protocol = url.partition("://")[0]
    try:
        return url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{url} cannot be read: {protocol}:// {_reason(error)}") from error
    except Exception as error:  # each package fails in its own way
        raise UsageError(f"{url} cannot be reached: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    if isinstance(error, ImportError):
        return f"needs a Python package that is not installed ({error})"
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def _failing_as(sentence: str) -> Iterator[None]:
    """Turn what the packages behind fsspec raise into one sentence."""
    try:
        yield
    except Exception as error:
        raise UsageError(f"{sentence}: {_reason(error)}") from error


def open_file(location: str) -> IO[bytes]:
    """A file opened for reading; it can be sought in."""
    if not is_url(location):
        return open(location, "rb")
    system, path = _file_system(location)
    return system.open(path, "rb")


def read_file(location: str) -> bytes:
    """The whole content of a file."""
    with open_file(location) as stream:
        return stream.read()


def write_file(location: str, content: bytes) -> None:
    """Write a file that is there whole or not at all."""
    if is_url(location):
        # Stores of objects show an object when it is whole.
        system, path = _file_system(location)
        system.makedirs(path.rpartition("/")[0], exist_ok=True)
        system.pipe_file(path, content)
        return
    temporary = f"{location}.{uuid.uuid4().hex}.partial"
    try:
        Path(temporary).write_bytes(content)
        os.replace(temporary, location)
    finally:
        Path(temporary).unlink(missing_ok=True)


def file_exists(location: str) -> bool:
    """Whether there is a file."""
    if not is_url(location):
        return Path(location).is_file()
    system, path = _file_system(location)
    return system.isfile(path)


def make_folder(location: str) -> None:
    """Make a folder and those above it, where they are missing."""
    if not is_url(location):
        Path(location).mkdir(parents=True, exist_ok=True)
        return
    system, path = _file_system(location)
    system.makedirs(path, exist_ok=True)


def folder_names(location: str) -> list[str]:
    """Names of what is in a folder, sorted; none where there is no folder."""
    if not is_url(location):
        return sorted(os.listdir(location)) if Path(location).is_dir() else []
    system, path = _file_system(location)
    if not system.isdir(path):
        return []
    return sorted(name.rstrip("/").rpartition("/")[2] for name in system.ls(path, detail=False))


def remove_folder(location: str) -> None:
    """Remove a folder with all that is in it, if it is there."""
    if not is_url(location):
        shutil.rmtree(location, ignore_errors=True)
        return
    system, path = _file_system(location)
    if system.isdir(path):
        system.rm(path, recursive=True)


def copy_folder(source: str, destination: str) -> None:
    """Copy the files of a folder that has no folders in it."""
    make_folder(destination)
    for name in folder_names(source):
        write_file(f"{destination}/{name}", read_file(f"{source}/{name}"))


@contextmanager
def local_copy(location: str) -> Iterator[str]:
    """A path with the content of a file or flat folder: itself, or a copy for as long as needed.

    Raises:
      UsageError: a URL that can't be read.
    """
    if not is_url(location):
        yield location
        return
    with TemporaryDirectory() as folder:
        copy = f"{folder}/{location.rstrip('/').rpartition('/')[2]}"
        with _failing_as(f"{location} cannot be read"):
            if file_exists(location):
                write_file(copy, read_file(location))
            else:
                files = [n for n in folder_names(location) if file_exists(f"{location}/{n}")]
                if not files:
                    raise FileNotFoundError("there is no such file or folder")
                make_folder(copy)
                for name in files:
                    write_file(f"{copy}/{name}", read_file(f"{location}/{name}"))
        yield copy
