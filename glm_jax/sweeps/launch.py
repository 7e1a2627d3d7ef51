"""Trials through the launch scripts of the checkout: which flags, which command."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
from collections.abc import Mapping
from pathlib import Path

from glm_jax.errors import RunError, UsageError
from glm_jax.sweeps.config import SweepConfig
from glm_jax.sweeps.jobs import gin_flags
from glm_jax.sweeps.run_kind import RunKind
from glm_jax.sweeps.trials import Trial
from glm_jax.typed_values import unknown_name

LAUNCH = Path(__file__).resolve().parents[2] / "launch"


@dataclasses.dataclass(frozen=True)
class Script:
    """A launch script.

    Attributes:
      name: its file.
      needed: flags that the sweep has to give.
      optional: those that it may give.
      switches: flags without a value.
      defaults: values of flags that the sweep doesn't give.
    """

    name: str
    needed: tuple[str, ...]
    optional: tuple[str, ...]
    switches: tuple[str, ...] = ()
    defaults: Mapping[str, object] = dataclasses.field(default_factory=dict)


CLOUD = ("num_slices", "project")
SCRIPTS: dict[str, Script] = {
    "slurm": Script(
        "slurm.sh",
        needed=(),
        optional=("nodes", "gpus_per_node", "partition", "time", "save_seconds"),
        defaults={"nodes": 1},
    ),
    "gke": Script(
        "gke.sh",
        needed=("cluster", "accelerator_type", "image"),
        optional=(*CLOUD, "zone", "max_restarts"),
    ),
    "tpu_vm": Script(
        "tpu_vm.sh",
        needed=("zone", "accelerator_type", "image"),
        optional=(
            *CLOUD,
            "runtime_version",
            "startup_script",
            "folder",
            "max_creations",
            "poll_seconds",
        ),
        switches=("spot", "delete"),
    ),
}


def launch_flags(sweep: SweepConfig) -> list[str]:
    """The flags of `sweep.launch`, for the script of the sweep's backend.

    Raises:
      UsageError: one is unknown or missing, or a switch is neither True nor False.
    """
    script = SCRIPTS[sweep.backend]
    known = (*script.needed, *script.optional, *script.switches)
    for name in sweep.launch:
        if name not in known:
            raise UsageError(f"sweep.launch: {unknown_name('flag', name, known)}")
    for name in script.needed:
        if name not in sweep.launch:
            raise UsageError(
                f"sweep.launch has no {name}, which sweep.backend = {sweep.backend!r} needs"
            )
    flags = []
    for name, value in {**script.defaults, **sweep.launch}.items():
        if name not in script.switches:
            flags.append(f"--{name}={value}")
        elif not isinstance(value, bool):
            raise UsageError(f"sweep.launch[{name!r}] is {value!r}; expected True or False")
        elif value:
            flags.append(f"--{name}")
    return flags


def launch_command(
    sweep: SweepConfig, kind: RunKind, folder: str, trial: Trial, own: Mapping[str, str]
) -> list[str]:
    """The launch script that runs a trial, with its flags.

    Args:
      sweep: the sweep.
      kind: of its runs.
      folder: of the sweep.
      trial: the trial.
      own: flags that differ from trial to trial.

    Raises:
      UsageError: the scripts are missing, or the flags are wrong.
    """
    script = LAUNCH / SCRIPTS[sweep.backend].name
    if not script.is_file():
        raise UsageError(f"{script} does not exist: the launch scripts are part of the checkout")
    command = [] if kind.command == "pretrain" else [kind.command]
    flags = [f"--{name}={value}" for name, value in own.items()]
    return [str(script), *command, *flags, *launch_flags(sweep), *gin_flags(trial, kind, folder)]


def dry_run(command: list[str]) -> str:
    """What a launch script would do.

    Raises:
      RunError: it refuses.
    """
    done = subprocess.run(
        [command[0], *_after_command(command, "--dry-run")],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise RunError(done.stderr.strip() or f"{command[0]} exits with {done.returncode}")
    return done.stdout.rstrip("\n")


def short_digest(text: str) -> str:
    """A few letters that distinguish a text, for names that may have no others."""
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _after_command(command: list[str], flag: str) -> list[str]:
    """The arguments of a script with one more flag, which comes after the command's name."""
    arguments = command[1:]
    first = 1 if arguments and not arguments[0].startswith("--") else 0
    return [*arguments[:first], flag, *arguments[first:]]
