"""Runs the launch scripts, with stand-ins for the commands that they call."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Writes down how it was called, one argument a line, and does what the test wants.
RECORDER = """#!{python}
import os, sys
with open({log!r}, "a") as log:
    log.write(repr(sys.argv) + "\\n")
{body}
"""
GLM_JAX = '#!/bin/sh\nexec "{python}" -m glm_jax "$@"\n'


@pytest.fixture
def commands(tmp_path) -> Path:
    """A folder that comes first on the PATH of the scripts."""
    folder = tmp_path / "commands"
    folder.mkdir()
    return folder


@pytest.fixture
def environment(commands, process_environment) -> dict[str, str]:
    return process_environment(1) | {
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "PYTHON": sys.executable,
    }


@pytest.fixture
def stand_in(commands, tmp_path) -> Callable[..., Path]:
    """Puts a command on the PATH that only records its arguments; returns the record's file."""

    def make(name: str, body: str = "") -> Path:
        log = tmp_path / f"{name}.log"
        command = commands / name
        command.write_text(RECORDER.format(python=sys.executable, log=str(log), body=body))
        command.chmod(0o755)
        return log

    return make


@pytest.fixture
def real_glm_jax(commands) -> None:
    """Puts the package's own command on the PATH."""
    command = commands / "glm-jax"
    command.write_text(GLM_JAX.format(python=sys.executable))
    command.chmod(0o755)


@pytest.fixture
def launch(environment) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a script of launch/ to its end."""

    def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(ROOT / "launch" / script), *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=900,
        )

    return run
