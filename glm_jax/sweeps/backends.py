"""The backends that `sweep.backend` names."""

from __future__ import annotations

from collections.abc import Mapping

from glm_jax.sweeps.config import SweepConfig
from glm_jax.sweeps.devices import divide_devices
from glm_jax.sweeps.jobs import Backend
from glm_jax.sweeps.local import LocalBackend
from glm_jax.sweeps.plan import Plan


def make_backend(plan: Plan, environment: Mapping[str, str]) -> Backend:
    """Where the trials of a plan run.

    Raises:
      UsageError: the backend lacks something.
    """
    sweep = plan.sweep
    slots = divide_devices(sweep.parallel, sweep.devices, environment)
    return LocalBackend(plan.kind, plan.folder, slots, environment)


def devices_per_trial(sweep: SweepConfig, environment: Mapping[str, str]) -> int | None:
    """How many devices a trial gets; None where that is not known before it starts.

    Raises:
      UsageError: there are fewer devices than trials at a time.
    """
    if sweep.backend != "local":
        return None
    return divide_devices(sweep.parallel, sweep.devices, environment)[0].num_devices
