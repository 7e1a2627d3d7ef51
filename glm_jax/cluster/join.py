"""How the processes of one run find each other, and which of them is missing.

`jax.distributed.initialize` aborts without naming a process that is missing, so the processes meet
before it, at the port that JAX uses afterwards. Whatever connects there has to prove that it is a
process of the run: both ends answer a challenge (HMAC, `multiprocessing.connection`) with the token
of the run, from the environment.
"""

from __future__ import annotations

import json
import os
import queue
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from typing import NoReturn

from glm_jax.cluster.watchdog import Peer, Peers
from glm_jax.errors import RunError, UsageError

# JAX's own heartbeats; `Peers` finds a lost process sooner.
HEARTBEAT_TIMEOUT_SECONDS = 100
SHUTDOWN_TIMEOUT_SECONDS = 30
# JAX needs some time of its own when the others joined in the last moment.
MIN_INITIALIZATION_SECONDS = 30
CONNECT_TIMEOUT_SECONDS = 5
POLL_SECONDS = 0.1
# How much longer than --join_timeout a process waits for process 0, which may have started later.
GRACE_SECONDS = 10
MAX_HELLO_BYTES = 1000
# Environment variable with the secret that all processes of a run share.
TOKEN_VARIABLE = "GLM_JAX_RUN_TOKEN"
DEFAULT_TOKEN = "glm_jax"
# Environment variables that list the hosts of the job in the order of their processes.
HOST_LISTS = ("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES")


def join_processes(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: float = 300,
) -> Peers:
    """Connects this process with the others of its run; returns once all are there.

    Process 0 first waits at the coordinator's address until every other process has proved that it
    belongs to the run and sent its number and host, so that a missing one can be named. `Peers`
    watches the processes over the same connections.

    Args:
      coordinator: HOST:PORT, where process 0 listens. Without all three arguments the cluster is
        asked: Slurm, Cloud TPU, GKE and whatever else JAX detects.
      num_processes: processes in the run.
      process_id: this one's number, from 0.
      timeout: seconds to wait for the other processes.

    Raises:
      UsageError: the arguments do not fit together, or there is no cluster to ask.
      RunError: some processes did not join, or with another token; the message says which.
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
        peers = _accept_processes(port, num_processes, deadline, timeout)
    else:
        peers = {0: _connect(host, port, process_id, num_processes, deadline, timeout)}
    jax.distributed.initialize(
        coordinator,
        num_processes,
        process_id,
        local_device_ids=device_ids,
        initialization_timeout=max(int(deadline - time.monotonic()), MIN_INITIALIZATION_SECONDS),
        heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_SECONDS,
        shutdown_timeout_seconds=SHUTDOWN_TIMEOUT_SECONDS,
    )
    return Peers(peers, process_id)


def _ask_cluster(timeout: float) -> tuple[str, int, int, list[int] | None]:
    """Coordinator, number of processes, this one's number and its devices, as JAX detects them.

    Raises:
      UsageError: there is no cluster that JAX knows.
    """
    # No public function of JAX returns these without connecting at once.
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


def _token() -> bytes:
    return (os.environ.get(TOKEN_VARIABLE) or DEFAULT_TOKEN).encode()


def _accept_processes(
    port: int, num_processes: int, deadline: float, timeout: float
) -> dict[int, Peer]:
    """Process 0's part: a connection to every other process.

    Raises:
      RunError: the port is taken, some did not join in time, or two have the same number.
    """
    try:
        # Accepted connections stay open while JAX's service listens on this port next.
        listener = _listener(port)
    except OSError as error:
        raise RunError(f"process 0 can't listen on port {port}: {error.strerror}") from error
    joined: dict[int, Peer] = {}
    proved: queue.SimpleQueue[Peer] = queue.SimpleQueue()
    with listener:
        listener.settimeout(POLL_SECONDS)
        while not _all_are_there(joined, num_processes):
            try:
                accepted = listener.accept()[0]
                # In a thread of its own: who answers slowly or never keeps no other waiting.
                threading.Thread(target=_verify, args=(accepted, proved), daemon=True).start()
            except TimeoutError:
                pass
            while not proved.empty():
                _add(joined, proved.get(), num_processes)
            if time.monotonic() > deadline and not _all_are_there(joined, num_processes):
                _refuse(joined.values(), missing(joined, num_processes, timeout))
    for peer in joined.values():
        peer.send({"start": socket.gethostname()})
    return joined


def _all_are_there(joined: dict[int, Peer], num_processes: int) -> bool:
    """Whether every process has joined; those that have ended since are removed."""
    for number, peer in list(joined.items()):
        if _has_ended(peer):
            peer.connection.close()
            del joined[number]
    return len(joined) == num_processes - 1


def _has_ended(peer: Peer) -> bool:
    """Whether the connection to a process, which waits for the start of the run, is closed."""
    try:
        if peer.connection.poll():
            peer.connection.recv_bytes(MAX_HELLO_BYTES)  # it has nothing to send before the start
    except (OSError, EOFError):
        return True
    return False


def _listener(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _connection(opened: socket.socket) -> Connection:
    opened.settimeout(None)
    return Connection(opened.detach())


def _verify(accepted: socket.socket, proved: queue.SimpleQueue[Peer]) -> None:
    """Adds the process at the other end, once it has proved that it knows the token."""
    connection = _connection(accepted)
    try:
        deliver_challenge(connection, _token())
        answer_challenge(connection, _token())
        hello = json.loads(connection.recv_bytes(MAX_HELLO_BYTES))
        process, num_processes = int(hello["process"]), int(hello["num_processes"])
        proved.put(Peer(connection, process, str(hello["host"]), num_processes))
    except (AuthenticationError, OSError, EOFError, ValueError, KeyError, TypeError):
        connection.close()  # a port scanner, or a process of another run


def _add(joined: dict[int, Peer], peer: Peer, num_processes: int) -> None:
    """Adds a process to those that have joined.

    Raises:
      RunError: it contradicts process 0 or one that joined before.
    """
    if peer.num_processes != num_processes:
        _refuse(
            [*joined.values(), peer],
            f"process {peer.process} on {peer.host} was started with "
            f"--num_processes={peer.num_processes}, but process 0 with {num_processes}",
        )
    earlier = joined.get(peer.process)
    if earlier and not _has_ended(earlier):
        _refuse(
            [*joined.values(), peer],
            f"two processes were started with --process_id={peer.process}, on "
            f"{earlier.host} and {peer.host}",
        )
    joined[peer.process] = peer


def _refuse(joined: Iterable[Peer], sentence: str) -> NoReturn:
    """Reports the reason to all that have joined, and ends.

    Raises:
      RunError: always.
    """
    for peer in joined:
        peer.send({"error": sentence})
    raise RunError(sentence)


def _connect(
    host: str, port: int, process_id: int, num_processes: int, deadline: float, timeout: float
) -> Peer:
    """Every other process's part: a connection to process 0, once all have joined.

    Raises:
      RunError: process 0 can't be reached in time, has another token, or reports who is missing.
    """
    here = socket.gethostname()
    unreachable = (
        f"process {process_id} on {here} did not reach process 0 at {host}:{port} within "
        f"{timeout:g} s; is process 0 running there?"
    )
    while True:
        try:
            opened = socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_SECONDS)
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise RunError(unreachable) from error
            time.sleep(POLL_SECONDS)
    peer = Peer(_connection(opened), 0, host, num_processes)
    # Process 0 counts from its own start, which may be later than ours.
    last = deadline + GRACE_SECONDS
    try:
        _wait_for_message(peer.connection, last)
        answer_challenge(peer.connection, _token())
        deliver_challenge(peer.connection, _token())
        peer.send({"process": process_id, "host": here, "num_processes": num_processes})
        _wait_for_message(peer.connection, last)
        answer = peer.receive()
    except AuthenticationError as error:
        raise RunError(
            f"process {process_id} on {here} and process 0 at {host}:{port} have different values "
            f"of {TOKEN_VARIABLE}"
        ) from error
    except (OSError, EOFError, ValueError) as error:
        raise RunError(unreachable) from error
    if "error" in answer:
        raise RunError(str(answer["error"]))
    peer.host = str(answer["start"])
    return peer


def _wait_for_message(connection: Connection, deadline: float) -> None:
    if not connection.poll(max(deadline - time.monotonic(), 0)):
        raise TimeoutError


def missing(joined: Mapping[int, Peer], num_processes: int, timeout: float) -> str:
    """One sentence: who did not join, by number and, where the cluster lists them, by host."""
    hosts: list[str] = []
    for variable in HOST_LISTS:
        listed = [host for host in os.environ.get(variable, "").split(",") if host]
        if len(listed) == num_processes:
            hosts = listed
            break
    absent = [number for number in range(1, num_processes) if number not in joined]
    named = ", ".join(f"{number} ({hosts[number]})" if hosts else str(number) for number in absent)
    present = ", ".join(f"{number} ({joined[number].host})" for number in sorted(joined))
    return (
        f"{len(absent)} of {num_processes} processes did not join within {timeout:g} s: process "
        f"{named}; joined: 0 ({socket.gethostname()}){', ' if present else ''}{present}"
    )
