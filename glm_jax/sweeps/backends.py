"""The backends that `sweep.backend` names."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from glm_jax.sweeps.config import SweepConfig
from glm_jax.sweeps.devices import Slot, divide_devices
from glm_jax.sweeps.jobs import Backend, gin_flags
from glm_jax.sweeps.launch import dry_run, launch_command, launch_flags, short_digest
from glm_jax.sweeps.local import GLM_JAX, LocalBackend, with_shared_cache
from glm_jax.sweeps.plan import Plan
from glm_jax.sweeps.prepared import ForkServer, is_supported
from glm_jax.sweeps.queue import Gke, Slurm, check_commands
from glm_jax.sweeps.trials import Trial

# What each backend calls, apart from what its launch script itself looks for.
COMMANDS = {
    "slurm": ("sbatch", "squeue", "scontrol"),
    "gke": ("xpk", "kubectl"),
    "tpu_vm": ("gcloud",),
}


class TpuVms(LocalBackend):
    """Each trial is a process of launch/tpu_vm.sh here, which has VMs of its own: those of a slot
    are used by one trial after another."""

    def __init__(self, plan: Plan, environment: Mapping[str, str]):
        slots = (Slot({}, frozenset(), 0),) * plan.sweep.parallel
        super().__init__(plan.local_folder, slots, environment, self._launched)
        self._plan = plan

    def commands(self, trial: Trial, slot: int) -> str:
        return dry_run(self._launched(trial, slot))

    def _launched(self, trial: Trial, slot: int) -> list[str]:
        plan = self._plan
        own = {"name": f"sweep-{short_digest(plan.folder)}-{slot}"}
        return launch_command(plan.sweep, plan.kind, plan.folder, trial, own)


def make_backend(plan: Plan, environment: Mapping[str, str], *, start: bool = True) -> Backend:
    """Where the trials of a plan run.

    Args:
      plan: the plan.
      environment: of the trials.
      start: whether trials will be started, rather than only shown.

    Raises:
      UsageError: the backend lacks something.
    """
    sweep = plan.sweep
    if sweep.backend == "local":
        slots = divide_devices(sweep.parallel, sweep.devices, environment)
        return local_backend(plan, slots, environment)
    launch_flags(sweep)
    if start:
        check_commands(COMMANDS[sweep.backend])
    if sweep.backend == "slurm":
        return Slurm(plan, with_shared_cache(environment, plan.local_folder))
    if sweep.backend == "gke":
        return Gke(plan, environment)
    return TpuVms(plan, environment)


def local_backend(
    plan: Plan,
    slots: tuple[Slot, ...],
    environment: Mapping[str, str],
    program: tuple[str, ...] = GLM_JAX,
) -> LocalBackend:
    """Trials as processes of this machine.

    Args:
      plan: the plan.
      slots: what each trial at a time may use.
      environment: of the trials.
      program: what `glm-jax` is started by.
    """

    def command(trial: Trial, slot: int) -> list[str]:
        return [*program, plan.kind.command, *gin_flags(trial, plan.kind, plan.folder)]

    cached = with_shared_cache(environment, plan.local_folder)
    start_server = None
    # Trials that start at once can't wait for the server.
    if program == GLM_JAX and plan.num_trials > len(slots) and is_supported():
        start_server = partial(ForkServer, plan.kind.command, cached)
    return LocalBackend(plan.local_folder, slots, cached, command, start_server)


def devices_per_trial(sweep: SweepConfig, environment: Mapping[str, str]) -> int | None:
    """How many devices a trial gets; None where that is not known before it starts.

    Raises:
      UsageError: there are fewer devices than trials at a time.
    """
    if sweep.backend == "local":
        return divide_devices(sweep.parallel, sweep.devices, environment)[0].num_devices
    per_node = sweep.launch.get("gpus_per_node")
    if sweep.backend == "slurm" and isinstance(per_node, int):
        return per_node * int(sweep.launch.get("nodes", 1))
    return None
