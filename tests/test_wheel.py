"""An installed package: what a wheel contains, and that gin files are found without a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUILD = "from setuptools import build_meta; import sys; print(build_meta.build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel of the package, built from a copy so that the checkout stays as it is."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "requirements.txt"):
        shutil.copy(ROOT / name, source)
    hidden = shutil.ignore_patterns("__pycache__")
    for name in ("glm_jax", "configs"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=hidden)
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-c", BUILD, str(out)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder for Python's path that holds the package as a wheel installs it."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_a_wheel_contains_every_module_configuration_and_page(wheel):
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "glm_jax").rglob("*")
        if path.suffix in (".py", ".html", ".css")
    }
    expected |= {
        f"glm_jax/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "configs").rglob("*.gin")
    }
    with zipfile.ZipFile(wheel) as archive:
        contained = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert contained == expected


def test_the_installed_package_reads_its_configurations_from_any_folder(installed, tmp_path):
    code = (
        "import glm_jax.configure as c; "
        "config = c.read_configuration(['configs/runs/demo.gin'], ['train.num_steps=6']); "
        "print(c.__file__, config.train.num_steps, config.model.num_layers)"
    )
    read = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert read.returncode == 0, read.stderr
    assert read.stderr == ""
    assert read.stdout.startswith(str(installed))
    assert read.stdout.split()[1] == "6"
