"""The processes of one run: how they join, watch each other, agree, and stop.

The public names are imported on first use, so that importing the package is fast.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glm_jax.cluster.agree import any_process, first_message, wait_for_all
    from glm_jax.cluster.heartbeat import Heartbeat, read_heartbeats
    from glm_jax.cluster.join import join_processes
    from glm_jax.cluster.preemption import StopRequest
    from glm_jax.cluster.watchdog import Peers

__all__ = [
    "Heartbeat",
    "Peers",
    "StopRequest",
    "any_process",
    "first_message",
    "join_processes",
    "read_heartbeats",
    "wait_for_all",
]

_PUBLIC = {
    "any_process": "glm_jax.cluster.agree",
    "first_message": "glm_jax.cluster.agree",
    "wait_for_all": "glm_jax.cluster.agree",
    "Heartbeat": "glm_jax.cluster.heartbeat",
    "read_heartbeats": "glm_jax.cluster.heartbeat",
    "join_processes": "glm_jax.cluster.join",
    "StopRequest": "glm_jax.cluster.preemption",
    "Peers": "glm_jax.cluster.watchdog",
}


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'glm_jax.cluster' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
