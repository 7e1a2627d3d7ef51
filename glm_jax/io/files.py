"""Files by path or URL: reading and writing them, whatever they are stored on.

All but the sources of texts go through ``paths.resolve_path`` and so through ``etils.epath``.
Sources are found and read by fsspec, whose files are seekable and whose patterns may have ``**``.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from glm_jax.errors import UsageError
from glm_jax.io.paths import is_url, resolve_path

COPY_BYTES = 1 << 22


def file_system(url: str) -> tuple[Any, str]:
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
def failing_as(sentence: str) -> Iterator[None]:
    """Turn what the packages behind fsspec raise into one sentence."""
    try:
        yield
    except Exception as error:
        raise UsageError(f"{sentence}: {_reason(error)}") from error


def open_file(location: str) -> IO[bytes]:
    """A file opened for reading; it can be sought in."""
    if not is_url(location):
        return open(location, "rb")
    system, path = file_system(location)
    return system.open(path, "rb")


def read_file(location: str | os.PathLike[str]) -> bytes:
    """The content of a file."""
    return resolve_path(location).read_bytes()


def write_file(location: str | os.PathLike[str], content: bytes) -> None:
    """Write a file atomically: whatever fails, it has its old content or the new one.

    Raises:
      OSError: it can't be written; the error names the file.
    """
    path = resolve_path(location)
    write_files(path.parent, {path.name: content})


def write_files(folder: str | os.PathLike[str], contents: Mapping[str, bytes]) -> None:
    """Write files of a folder, each atomically, and none before all of them fit on a local disk.

    Args:
      folder: a path, which must exist, or a URL.
      contents: by the files' names.

    Raises:
      OSError: one can't be written; the error names it.
    """
    parent = resolve_path(folder)
    if is_url(parent):
        # Object stores show an object only when it is complete.
        parent.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            with naming_file(parent / name):
                (parent / name).write_bytes(content)
        return
    # Names have at most 255 bytes, of which a letter may take 4.
    temporary = {name: parent / f".{name[:50]}.{uuid.uuid4().hex}.partial" for name in contents}
    try:
        for name, content in contents.items():
            with naming_file(parent / name):
                temporary[name].write_bytes(content)
        for name, written in temporary.items():
            with naming_file(parent / name):
                written.replace(parent / name)
    finally:
        for written in temporary.values():
            with suppress(OSError):
                written.unlink(missing_ok=True)


@contextmanager
def naming_file(path: str | os.PathLike[str]) -> Iterator[None]:
    """Let an OSError name this file, where it names none or a temporary one.

    Raises:
      OSError: as the block does.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise OSError(f"{os.fspath(path)}: {_reason(error)}") from error
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def check_new_file(path: str | os.PathLike[str], name: str) -> None:
    """Make sure that a file can be made at a path, before the work for its content.

    Args:
      path: an absolute path or URL.
      name: the flag that it was given by, for the message.

    Raises:
      UsageError: its folder does not exist, or it is a folder itself.
    """
    if is_url(path):
        return
    local = Path(path)
    if local.is_dir():
        raise UsageError(f"{name} is {local}, which is a folder; expected a file to write")
    if not local.parent.is_dir():
        raise UsageError(f"{name} is {local}, but its folder does not exist")


def file_exists(location: str | os.PathLike[str]) -> bool:
    """Whether there is a file."""
    return resolve_path(location).is_file()


def make_folder(location: str | os.PathLike[str]) -> None:
    """Make a folder and those above it, where they are missing."""
    resolve_path(location).mkdir(parents=True, exist_ok=True)


def folder_names(location: str | os.PathLike[str]) -> list[str]:
    """Names of what is in a folder, sorted; none where there is no folder."""
    path = resolve_path(location)
    return sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []


def remove_folder(location: str | os.PathLike[str]) -> None:
    """Remove a folder with all that is in it, if it is there; what can't be removed stays."""
    path = resolve_path(location)
    with suppress(OSError):
        if path.is_dir():
            path.rmtree()


def copy_folder(
    source: str | os.PathLike[str], destination: str | os.PathLike[str], last: str | None = None
) -> None:
    """Copy a folder with all that is in it.

    Args:
      source: the folder, a path or URL.
      destination: the new folder, a path or URL.
      last: what is copied when all else is there, by which a copy is known to be complete.

    Raises:
      OSError: something can't be read or written.
    """
    from_folder, to_folder = resolve_path(source), resolve_path(destination)
    to_folder.mkdir(parents=True, exist_ok=True)
    for entry in sorted(from_folder.iterdir(), key=lambda entry: entry.name == last):
        if entry.is_dir():
            copy_folder(entry, to_folder / entry.name)
            continue
        copy = to_folder / entry.name
        with naming_file(copy), entry.open("rb") as read, copy.open("wb") as written:
            shutil.copyfileobj(read, written, COPY_BYTES)


@contextmanager
def local_copy(location: str | os.PathLike[str]) -> Iterator[str]:
    """A local path with the content of a file or folder: itself, or a temporary copy of a URL.

    Raises:
      UsageError: a URL that can't be read.
    """
    path = resolve_path(location)
    if not is_url(path):
        yield os.fspath(path)
        return
    with TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        with failing_as(f"{location} cannot be read"):
            if path.is_file():
                copy.write_bytes(path.read_bytes())
            elif path.is_dir() and any(path.iterdir()):
                copy_folder(path, copy)
            else:
                raise FileNotFoundError("there is no such file or folder")
        yield os.fspath(copy)
