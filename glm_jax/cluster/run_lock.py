"""One run at a time in a run folder: process 0 holds the folder's lock for all processes."""

from __future__ import annotations

from collections.abc import Callable

import jax
from etils import epath

from glm_jax.cluster.agree import first_message, wait_for_all
from glm_jax.errors import RunError
from glm_jax.io.lock import FolderLock


class RunLock:
    """Holds a run folder while it is entered; all processes of the run enter it together."""

    def __init__(self, folder: epath.Path, say: Callable[[str], None]):
        """Args:
        folder: the run folder; made where it is missing.
        say: reports that a lock is being watched, which takes a while.
        """
        self._lock = None
        if jax.process_index() == 0:
            self._lock = FolderLock(folder, say, in_use=f"the run folder {folder} is in use by")

    def __enter__(self) -> RunLock:
        """Takes the lock, once every process is ready for it.

        Raises:
          RunError: in all processes, since another run has it or the folder can't be written to.
        """
        wait_for_all("everything is checked")
        problem = None
        if self._lock:
            try:
                self._lock.__enter__()
            except RunError as error:
                problem = str(error)
        problem = first_message(problem)
        if problem is not None:
            raise RunError(problem)
        return self

    def __exit__(self, *error: object) -> None:
        if self._lock:
            self._lock.__exit__(*error)

    def check(self) -> None:
        """Makes sure that the run still holds its folder; only process 0 can know.

        Raises:
          RunError: another run has it.
        """
        if self._lock:
            self._lock.check()
