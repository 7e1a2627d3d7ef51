"""Conversations in files: JSON with the turns."""

from __future__ import annotations

import json
from collections.abc import Sequence

from etils import epath

from glm_jax.chat.turns import Turn
from glm_jax.errors import UsageError
from glm_jax.io.files import write_file


def save_turns(path: epath.Path, turns: Sequence[Turn]) -> None:
    """Writes a conversation.

    Raises:
      UsageError: the file can't be written.
    """
    content = json.dumps(
        {"turns": [turn._asdict() for turn in turns]}, ensure_ascii=False, indent=2
    )
    try:
        write_file(path, content.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error}") from error


def load_turns(path: epath.Path) -> list[Turn]:
    """Reads a conversation that `save_turns` wrote.

    Raises:
      UsageError: the file can't be read, or is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        turns = [Turn(turn["query"], turn["answer"]) for turn in content["turns"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no saved conversation: {error}") from error
    if not all(isinstance(text, str) for turn in turns for text in turn):
        raise UsageError(f"{path} is no saved conversation: a turn is not text")
    return turns
