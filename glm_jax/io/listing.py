"""Which files a path, URL or glob pattern stands for, and what is left out on the way."""

from __future__ import annotations

import glob
import os
import stat
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from glm_jax.errors import UsageError
from glm_jax.io.files import failing_as, file_system
from glm_jax.io.paths import is_url

LOCAL_SCHEME = "file://"
HIDDEN = "hidden"
SPECIAL = "no regular file"
LOOP = "link to a folder above"


@dataclass(frozen=True)
class SourceFile:
    """A file to read: its path or URL, its size in bytes, and what changes when it changes."""

    location: str
    size: int
    stamp: str


@dataclass
class Listing:
    """What a source stands for.

    Attributes:
      files: sorted.
      ignored: how many files or folders were left out, by kind.
      broken: files and folders that can't be read, each with the reason.
      is_named: whether the source is a file itself rather than a folder or a pattern.
    """

    files: list[SourceFile] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    is_named: bool = False


def list_files(source: str) -> Listing:
    """The files that a path, URL or glob pattern stands for.

    A folder, also one that matches a pattern, stands for all files in it at any depth, without
    hidden ones. Links are followed; a folder that several links lead to is listed once.

    Raises:
      UsageError: the source is empty, a link that leads nowhere or a URL that can't be listed, or
        no package that reads this kind of URL is installed.
    """
    if not source.strip():
        raise UsageError("a SOURCE is empty; expected a path, URL or data set")
    if source.startswith(LOCAL_SCHEME):
        listing = _list_local(source.removeprefix(LOCAL_SCHEME))
        files = [
            SourceFile(f"{LOCAL_SCHEME}{file.location}", file.size, file.stamp)
            for file in listing.files
        ]
        listing.files = sorted(files, key=lambda file: file.location)
        return listing
    return _list_remote(source) if is_url(source) else _list_local(source)


def _list_local(source: str) -> Listing:
    path = Path(os.path.expanduser(source))
    if path.is_symlink() and not path.exists():
        raise UsageError(
            f"source {source!r} is a link to {os.readlink(path)}, which does not exist"
        )
    walk = _Walk()
    if os.path.isfile(path):
        walk.listing.is_named = True
        walk.add_entry(path)
    elif os.path.isdir(path):
        walk.add_folders([path])
    else:
        found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
        for entry in found:
            if not os.path.isdir(entry):
                walk.add_entry(entry)
        walk.add_folders(entry for entry in found if os.path.isdir(entry))
    walk.listing.files = [walk.files[path] for path in sorted(walk.files)]
    return walk.listing


class _Walk:
    """Lists folders of this machine; each folder once, whatever links lead to it."""

    def __init__(self) -> None:
        self.listing = Listing()
        self.files: dict[Path, SourceFile] = {}
        self._visited: set[str] = set()
        self._links: list[Path] = []

    def add_folders(self, folders: Iterable[Path]) -> None:
        """Lists folders and those in them first, then the ones that only links lead to."""
        for folder in folders:
            self._add_folder(folder)
        while self._links:
            link = self._links.pop(0)
            target, parent = os.path.realpath(link), os.path.realpath(link.parent)
            if os.path.commonpath([target, parent]) == target:
                self.listing.ignored[LOOP] += 1
            else:
                self._add_folder(link)

    def _add_folder(self, folder: Path) -> None:
        pending = [folder]
        while pending:
            folder = pending.pop()
            identity = os.path.realpath(folder)
            if identity in self._visited:
                continue
            self._visited.add(identity)
            try:
                entries = sorted(folder.iterdir())
            except OSError as error:
                self.listing.broken.append(f"{folder} ({error.strerror})")
                continue
            for entry in entries:
                if entry.name.startswith("."):
                    self.listing.ignored[HIDDEN] += 1
                elif not os.path.isdir(entry):  # which no missing permission can make fail
                    self.add_entry(entry)
                elif entry.is_symlink():
                    self._links.append(entry)
                else:
                    pending.append(entry)

    def add_entry(self, path: Path) -> None:
        """Takes a file, or counts what is none."""
        if path in self.files:
            return
        try:
            status = path.stat()
        except FileNotFoundError:
            gone = f"a link to {os.readlink(path)}, which does not exist"
            self.listing.broken.append(f"{path} ({gone if path.is_symlink() else 'is gone'})")
        except OSError as error:
            self.listing.broken.append(f"{path} ({error.strerror})")
        else:
            if stat.S_ISREG(status.st_mode):
                self.files[path] = SourceFile(str(path), status.st_size, str(status.st_mtime_ns))
            else:
                self.listing.ignored[SPECIAL] += 1


def _list_remote(source: str) -> Listing:
    system, path = file_system(source)
    with failing_as(f"source {source!r} cannot be listed"):
        listing = Listing(is_named=system.isfile(path))
        matches = [path] if listing.is_named or system.isdir(path) else system.glob(path)
        names: set[str] = set()
        for match in matches:
            if not system.isdir(match):
                names.add(match)
                continue
            for name in system.find(match):
                if _is_hidden(name.removeprefix(match.rstrip("/"))):
                    listing.ignored[HIDDEN] += 1
                else:
                    names.add(name)
        listing.files = [
            SourceFile(system.unstrip_protocol(name), system.size(name), system.ukey(name))
            for name in sorted(names)
        ]
        return listing


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))
