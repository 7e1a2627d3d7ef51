"""User input to paths: one class of path for local files, buckets and every URL of fsspec.

`etils.epath` supplies local paths and gs://, s3://, az:// and hf://. Any other scheme is registered
with it when it is first used, as a path over the fsspec file system of that scheme.
"""

from __future__ import annotations

import glob
import os
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Self

from etils import epath

from glm_jax.errors import UsageError

# Schemes that TensorStore, and orbax through it, reads and writes; local paths have none. At other
# URLs, what they write is uploaded when it is complete, and what they read is downloaded.
TENSORSTORE_SCHEMES = frozenset({"gs", "s3"})
_EPATH_SCHEMES = frozenset({"gs", "s3", "az", "hf"})
_registered: set[str] = set()


def is_url(location: str | os.PathLike[str]) -> bool:
    """Whether `location` is a URL rather than a path."""
    return "://" in os.fspath(location)


def scheme_of(location: str | os.PathLike[str]) -> str | None:
    """The scheme of a URL, such as "gs"; None for a path."""
    scheme, separator, _ = os.fspath(location).partition("://")
    return scheme if separator else None


def resolve_path(location: str | os.PathLike[str], name: str = "the path") -> epath.Path:
    """The absolute path or URL that a user's input names.

    `~` is expanded, relative paths and `..` are resolved, trailing slashes are dropped, and a
    file:// URL becomes a local path. Symbolic links are kept, except below `..`, which means the
    parent of the folder that a link points to.

    Args:
      location: a path or URL, as it was given.
      name: the flag or field that it was given by, for the message.

    Raises:
      UsageError: it is empty, is not UTF-8, names an unknown user or an unknown scheme, or is a
        loop of links.
    """
    text = os.fspath(location)
    if not text.strip():
        raise UsageError(f"{name} is empty; expected a path or URL")
    if "\0" in text:
        raise UsageError(f"{name} is {text!r}, which holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # TensorStore and JSON take no other names
        raise UsageError(f"{name} is {text!r}, which is not UTF-8") from error
    text = text.removeprefix("file://")
    if is_url(text):
        return _resolve_url(text, name)
    try:
        path = Path(text).expanduser()
        path = path.resolve() if ".." in path.parts else path.absolute()
    except (OSError, RuntimeError) as error:
        raise UsageError(f"{name} is {text!r}, which can't be resolved: {error}") from error
    return epath.Path(path)


def _resolve_url(url: str, name: str) -> epath.Path:
    scheme, _, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    key = posixpath.normpath(f"/{key}").strip("/")
    if not bucket and not key:
        raise UsageError(f"{name} is {url!r}; expected a bucket and a path after {scheme}://")
    if scheme not in _EPATH_SCHEMES and scheme not in _registered:
        # Imported here because local paths don't need it.
        from fsspec import available_protocols

        if scheme not in available_protocols():
            raise UsageError(f"{name} is {url!r}, but no package is known that reads {scheme}://")
        epath.register_path_cls(f"{scheme}://")(FsspecPath)
        _registered.add(scheme)
    return epath.Path(f"{scheme}://{'/'.join(part for part in (bucket, key) if part)}")


class FsspecPath(epath.Path):
    """A URL of any scheme that fsspec knows, with the methods of a path."""

    def __str__(self) -> str:
        """The URL; a relative path, as `relative_to` gives, has no scheme."""
        parts = self.parts
        if parts and parts[0].endswith(":"):
            return f"{parts[0]}//{'/'.join(parts[1:])}"
        return "/".join(parts) or "."

    def __fspath__(self) -> str:
        """The URL."""
        return str(self)

    def _system(self) -> Any:
        import fsspec

        try:
            return fsspec.filesystem(self.parts[0].removesuffix(":"))
        except ImportError as error:
            raise UsageError(
                f"{self} needs a Python package that is not installed ({error})"
            ) from error

    def exists(self) -> bool:
        """Whether there is a file or folder."""
        return self._system().exists(str(self))

    def is_dir(self) -> bool:
        """Whether there is a folder."""
        return self._system().isdir(str(self))

    def is_file(self) -> bool:
        """Whether there is a file."""
        return self._system().isfile(str(self))

    def iterdir(self) -> Iterator[FsspecPath]:
        """What is in the folder."""
        for name in self._system().ls(str(self), detail=False):
            yield self / posixpath.basename(name.rstrip("/"))

    def resolve(self, strict: bool = False) -> Self:
        """Itself: a URL is absolute."""
        return self

    def absolute(self) -> Self:
        """Itself."""
        return self

    def expanduser(self) -> Self:
        """Itself."""
        return self

    def mkdir(self, mode: int | None = None, parents: bool = False, exist_ok: bool = False) -> None:
        """Makes the folder and those above it."""
        self._system().makedirs(str(self), exist_ok=exist_ok)

    def rmtree(self, missing_ok: bool = False) -> None:
        """Removes the folder with all that is in it."""
        if self.exists() or not missing_ok:
            # `rm` takes patterns.
            self._system().rm(glob.escape(str(self)), recursive=True)

    def unlink(self, missing_ok: bool = False) -> None:
        """Removes the file."""
        if self.exists() or not missing_ok:
            self._system().rm_file(str(self))

    def open(self, mode: str = "r", **options: Any) -> IO[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Opens the file."""
        return self._system().open(str(self), mode, **options)

    def replace(self, target: str | os.PathLike[str]) -> Self:
        """Moves it over `target`."""
        self._system().mv(str(self), os.fspath(target), recursive=True)
        return type(self)(os.fspath(target))

    def rename(self, target: str | os.PathLike[str]) -> Self:
        """Moves it to `target`."""
        return self.replace(target)


def is_tensorstore_location(location: str | os.PathLike[str]) -> bool:
    """Whether TensorStore reads and writes a path or URL by itself."""
    return scheme_of(location) in (None, *TENSORSTORE_SCHEMES)


def key_value_store(folder: str | os.PathLike[str]) -> str | dict[str, str]:
    """TensorStore's specification of a folder at an absolute path or URL."""
    location = f"{os.fspath(folder).rstrip('/')}/"
    return location if is_url(location) else {"driver": "file", "path": location}


def local_path(path: epath.Path, name: str) -> Path:
    """The same local path for code that needs files of the operating system.

    Raises:
      UsageError: it is a URL.
    """
    if is_url(path):
        raise UsageError(f"{name} is {path}, a URL; expected a local path")
    return Path(path)
