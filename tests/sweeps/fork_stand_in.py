"""A fork server whose processes are stand-ins for the runs, so that it imports little.

python fork_stand_in.py DESCRIPTOR COMMAND
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from glm_jax.sweeps.fork_server import READY, send, serve

sys.path.insert(0, str(Path(__file__).parent))
import stand_in


def main() -> int:
    """The server, and its processes."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    send(connection, READY)
    arguments = serve(connection)
    if arguments[0] == "describe":
        variable = os.environ.get("FOR_THE_SLOT", "")
        cores = sorted(os.sched_getaffinity(0))
        print(arguments[1:], variable, cores, os.getsid(0) == os.getpid(), sys.stdin.read())
        print("an error", file=sys.stderr)
        return 3
    return stand_in.main()


if __name__ == "__main__":
    sys.exit(main())
