"""Lines that a user typed, from one session to the next."""

from __future__ import annotations

import os
from pathlib import Path


class LineHistory:
    """Lines of earlier conversations, for the arrow keys, where the terminal has line editing."""

    def __init__(self, name: str) -> None:
        """Reads what is kept under a name; without line editing, nothing is."""
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        self._path = Path(state) / "glm-jax" / name
        try:
            import readline
        except ImportError:
            self._readline = None
            return
        self._readline = readline
        readline.set_history_length(1000)
        # A history that can't be read or written is no reason not to start.
        try:
            readline.read_history_file(self._path)
        except OSError:
            return

    def save(self) -> None:
        """Writes the lines so far."""
        if self._readline is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._readline.write_history_file(self._path)
        except OSError:
            return
