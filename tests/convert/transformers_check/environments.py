"""Environments of other versions of `transformers`, which share the torch that is installed."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

# The newest accelerate that each version's Trainer works with.
ACCELERATE = {
    "4.30.2": "0.20.3",
    "4.40.2": "0.30.1",
    "4.48.3": "1.10.0",
    "4.57.6": "1.10.0",
}
_OTHERS = ("jinja2", "filelock", "fsspec", "typing_extensions", "psutil", "pyyaml", "numpy")
# Where environments are kept from one run of the tests to the next.
CACHE_VARIABLE = "GLM_JAX_TEST_ENVIRONMENTS"
_COMPLETE = "complete"


def cached_environment(version: str) -> Path:
    """The Python of an environment with a version of transformers, made where there is none yet.

    Raises:
      subprocess.CalledProcessError: the package index doesn't have it, or can't be reached.
    """
    default = Path.home() / ".cache/glm_jax/test_environments"
    cache = Path(os.environ.get(CACHE_VARIABLE, default))
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = cache / f"transformers-{version}-python{python}-torch{metadata.version('torch')}"
    with _alone(cache, folder.name):
        if not (folder / _COMPLETE).exists():
            venv.create(folder, with_pip=True, symlinks=True, clear=True)
            _fill(folder, version)
            (folder / _COMPLETE).touch()
    return folder / "bin" / "python"


@contextmanager
def _alone(cache: Path, name: str) -> Iterator[None]:
    """Waits until no other process makes the same environment."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fill(folder: Path, version: str) -> None:
    """Installs what is needed, and links to the installed torch."""
    links = folder / "torch"
    link_distributions("torch", links)
    packages = next((folder / "lib").glob("python*/site-packages"))
    (packages / "torch_links.pth").write_text(f"{links}\n")
    python = folder / "bin" / "python"
    _install(python, f"transformers=={version}", *_OTHERS)
    _install(python, "--no-deps", f"accelerate=={ACCELERATE[version]}")


def link_distributions(name: str, links: Path) -> None:
    """Links to an installed distribution and to all that it needs and is installed."""
    links.mkdir()
    pending, done = [name], {"numpy", "filelock", "fsspec", "jinja2", "typing-extensions"}
    while pending:
        distribution = pending.pop()
        if distribution in done:
            continue
        done.add(distribution)
        try:
            found = metadata.distribution(distribution)
        except metadata.PackageNotFoundError:
            continue
        for top in {file.parts[0] for file in found.files or [] if file.parts[0] != ".."}:
            target = Path(str(found.locate_file(top)))
            if target.exists() and not (links / top).exists() and top != "__pycache__":
                (links / top).symlink_to(target)
        needed = (re.match(r"[\w.-]+", line) for line in found.requires or [])
        pending += [match[0].lower().replace("_", "-") for match in needed if match]


def _install(python: Path, *packages: str) -> None:
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
