"""Environments of other versions of `transformers`, which share the torch that is installed."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
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


def make_environment(folder: Path, version: str) -> Path:
    """A new environment with a version of transformers from the package index; its Python.

    Args:
      folder: new; gets the environment, and links to the installed torch.
      version: of transformers, one of `ACCELERATE`.
    """
    venv.create(folder, with_pip=True, symlinks=True)
    python = folder / "bin" / "python"
    links = folder / "torch"
    link_distributions("torch", links)
    packages = next((folder / "lib").glob("python*/site-packages"))
    (packages / "torch_links.pth").write_text(f"{links}\n")
    _install(python, f"transformers=={version}", *_OTHERS)
    _install(python, "--no-deps", f"accelerate=={ACCELERATE[version]}")
    return python


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
    subprocess.run(list(map(str, command)), check=True, stdout=sys.stderr)
