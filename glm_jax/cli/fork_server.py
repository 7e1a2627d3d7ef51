"""The process that the trials of a sweep are forked from, see `glm_jax.sweeps.fork_server`.

python -m glm_jax.cli.fork_server DESCRIPTOR COMMAND
"""

from __future__ import annotations

import gc
import importlib
import socket
import sys
from collections.abc import Mapping

from glm_jax import environment
from glm_jax.cli.main import main
from glm_jax.sweeps.fork_server import READY, send, serve

# What a run imports before its first step.
MODULES: Mapping[str, tuple[str, ...]] = {
    "pretrain": ("rich.console", "glm_jax.configure", "glm_jax.train.pretrain"),
    "finetune": ("rich.console", "glm_jax.configure", "glm_jax.finetune.run"),
}


def run(descriptor: int, command: str) -> int:
    """The server, and in the processes that it forks, their runs.

    Args:
      descriptor: of the connection to the driver.
      command: that the runs are of.
    """
    connection = socket.socket(fileno=descriptor)
    environment.leave_out_keras()
    for name in MODULES[command]:
        importlib.import_module(name)
    gc.freeze()  # so that collections in the processes don't copy what they share
    send(connection, READY)
    return main(serve(connection))


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), sys.argv[2]))
