"""One driver in a process of its own, with the stand-in for the runs.

python drive.py SWEEP_FILE [BINDING...]
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from glm_jax.configure import read_sweep
from glm_jax.errors import RunError
from glm_jax.sweeps.backends import local_backend
from glm_jax.sweeps.devices import Slot
from glm_jax.sweeps.plan import Plan
from glm_jax.sweeps.run import run_sweep

STAND_IN = (sys.executable, "-S", str(Path(__file__).with_name("stand_in.py")))


def main() -> int:
    """Drives."""
    sweep, bound = read_sweep([sys.argv[1]], sys.argv[2:])
    plan = Plan(sweep, bound, sys.argv[1], 1)
    slots = (Slot({}, frozenset(), 1),) * sweep.parallel
    backend = local_backend(plan, slots, os.environ, STAND_IN)
    try:
        run_sweep(plan, backend, lambda line: print(line, flush=True))
    except RunError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
