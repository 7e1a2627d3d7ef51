"""How the processes of one run find each other, and which of them does not come."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterable, Mapping
from typing import NoReturn

from glm_jax.cluster.watchdog import Connection, Peers
from glm_jax.errors import RunError, UsageError

# JAX's own watch over the processes; ours, in `Peers`, is the quicker one.
HEARTBEAT_TIMEOUT = 100
SHUTDOWN_TIMEOUT = 30
# Where clusters tell every process the hosts of the job, in the order of their processes.
HOST_LISTS = ("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES")


def join_processes(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: float = 300,
) -> Peers:
    """Connects this process with the others of its run; returns once all are there.

    Before JAX is told, process 0 waits at the coordinator's address until every other process has
    named itself and its host, so that a missing one can be named too. The connections stay open,
    and `Peers` watches over the processes through them.

    Args:
      coordinator: HOST:PORT, where process 0 listens. Without all three arguments the cluster is
        asked: Slurm, Cloud TPU, GKE and whatever else JAX knows.
      num_processes: processes in the run.
      process_id: this one's number, from 0.
      timeout: seconds until a process that does not come is given up.

    Raises:
      UsageError: the arguments do not fit together, or there is no cluster to ask.
      RunError: some processes did not come; the message says which.
    """
    import jax

    device_ids = None
    if coordinator is None or num_processes is None or process_id is None:
        coordinator, num_processes, process_id, device_ids = _ask_cluster(timeout)
    host, port = _host_and_port(coordinator)
    if not 0 <= process_id < num_processes:
        raise UsageError(
            f"--process_id is {process_id}; expected 0 to {num_processes - 1}, one less than "
            "--num_processes"
        )
    deadline = time.monotonic() + timeout
    if process_id == 0:
        connections = _gather(port, num_processes, deadline, timeout)
    else:
        connections = {0: _arrive(host, port, process_id, num_processes, deadline, timeout)}
    jax.distributed.initialize(
        coordinator,
        num_processes,
        process_id,
        local_device_ids=device_ids,
        initialization_timeout=max(int(deadline - time.monotonic()), 30),
        heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
        shutdown_timeout_seconds=SHUTDOWN_TIMEOUT,
    )
    return Peers(connections, process_id)


def _ask_cluster(timeout: float) -> tuple[str, int, int, list[int] | None]:
    """Coordinator, number of processes, this one's number and its devices, as JAX detects them.

    Raises:
      UsageError: there is no cluster that JAX knows.
    """
    # No public function of JAX tells these without connecting at once.
    from jax._src.clusters import ClusterEnv

    coordinator, num_processes, process_id, device_ids = (
        ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, None, int(timeout))
    )
    if coordinator is None or num_processes is None or process_id is None:
        raise UsageError(
            "--distributed found no cluster here; give --coordinator, --num_processes and "
            "--process_id"
        )
    return coordinator, num_processes, process_id, None if device_ids is None else list(device_ids)


def _host_and_port(coordinator: str) -> tuple[str, int]:
    host, _, port = coordinator.rpartition(":")
    if not (host and port.isdecimal()):
        raise UsageError(f"--coordinator is {coordinator!r}; expected HOST:PORT")
    return host.strip("[]"), int(port)


def _gather(
    port: int, num_processes: int, deadline: float, timeout: float
) -> dict[int, Connection]:
    """Process 0's part: a connection to every other process.

    Raises:
      RunError: the port is taken, some did not come in time, or two have the same number.
    """
    arrived: dict[int, Connection] = {}
    try:
        # Accepted connections stay open beside JAX's service, which listens on this port next.
        listener = _listener(port)
    except OSError as error:
        raise RunError(f"process 0 can't listen on port {port}: {error.strerror}") from error
    with listener:
        while len(arrived) < num_processes - 1:
            listener.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                connection = _greet(listener.accept()[0])
            except TimeoutError:
                _refuse(arrived.values(), missing(arrived, num_processes, timeout))
            if connection is None:
                continue
            if connection.num_processes != num_processes:
                _refuse(
                    [*arrived.values(), connection],
                    f"process {connection.process} on {connection.host} was started with "
                    f"--num_processes={connection.num_processes}, but process 0 with "
                    f"{num_processes}",
                )
            if earlier := arrived.get(connection.process):
                _refuse(
                    [*arrived.values(), connection],
                    f"two processes were started with --process_id={connection.process}, on "
                    f"{earlier.host} and {connection.host}",
                )
            arrived[connection.process] = connection
    for connection in arrived.values():
        connection.send({"go": socket.gethostname()})
    return arrived


def _listener(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _greet(accepted: socket.socket) -> Connection | None:
    """The process at the other end, None where it is something else that knocked."""
    accepted.settimeout(10)
    try:
        hello = json.loads(accepted.makefile("r").readline(1000))
        return Connection(accepted, hello["process"], hello["host"], hello["num_processes"])
    except (OSError, ValueError, KeyError, TypeError):
        accepted.close()
        return None


def _refuse(arrived: Iterable[Connection], sentence: str) -> NoReturn:
    """Tells all that came, and gives up.

    Raises:
      RunError: always.
    """
    for connection in arrived:
        connection.send({"error": sentence})
    raise RunError(sentence)


def _arrive(
    host: str, port: int, process_id: int, num_processes: int, deadline: float, timeout: float
) -> Connection:
    """Every other process's part: a connection to process 0, once all have come.

    Raises:
      RunError: process 0 can't be reached in time, or says who is missing.
    """
    here = socket.gethostname()
    nobody = (
        f"process {process_id} on {here} did not reach process 0 at {host}:{port} within "
        f"{timeout:g} s; is process 0 running there?"
    )
    while True:
        try:
            reached = socket.create_connection((host, port), timeout=5)
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise RunError(nobody) from error
            time.sleep(0.2)
    hello = {"process": process_id, "host": here, "num_processes": num_processes}
    connection = Connection(reached, 0, host, num_processes)
    connection.send(hello)
    # Process 0 counts from its own start, which may be later than ours.
    reached.settimeout(timeout + 10)
    try:
        answer = connection.receive()
    except OSError:
        answer = []
    if not answer:
        raise RunError(nobody)
    if "error" in answer[0]:
        raise RunError(str(answer[0]["error"]))
    # The same connection goes on: the first beats may have come with the answer.
    connection.host = str(answer[0]["go"])
    return connection


def missing(arrived: Mapping[int, Connection], num_processes: int, timeout: float) -> str:
    """One sentence: who did not come, by number and, where the cluster lists them, by host."""
    hosts: list[str] = []
    for name in HOST_LISTS:
        listed = [host for host in os.environ.get(name, "").split(",") if host]
        if len(listed) == num_processes:
            hosts = listed
            break
    absent = [number for number in range(1, num_processes) if number not in arrived]
    named = ", ".join(f"{number} ({hosts[number]})" if hosts else str(number) for number in absent)
    came = ", ".join(f"{number} ({arrived[number].host})" for number in sorted(arrived))
    return (
        f"{len(absent)} of {num_processes} processes did not come within {timeout:g} s: process "
        f"{named}; there were 0 ({socket.gethostname()}){', ' if came else ''}{came}"
    )
