"""The processes of one run: how they join, watch each other, agree, and stop.

The public names are imported on first use, so that importing the package is fast.
"""

from typing import TYPE_CHECKING

from glm_jax.lazy_exports import lazy_exports

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

__getattr__ = lazy_exports(
    __name__,
    {
        "any_process": "agree",
        "first_message": "agree",
        "wait_for_all": "agree",
        "Heartbeat": "heartbeat",
        "read_heartbeats": "heartbeat",
        "join_processes": "join",
        "StopRequest": "preemption",
        "Peers": "watchdog",
    },
)
