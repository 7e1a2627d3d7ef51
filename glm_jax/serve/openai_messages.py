"""The messages of a request in OpenAI's format, as turns."""

from __future__ import annotations

import dataclasses
from typing import Any

from glm_jax.chat.turns import Turn
from glm_jax.io.encodings import LONE_SURROGATE
from glm_jax.serve.errors import RequestError


@dataclasses.dataclass(frozen=True)
class Conversation:
    """The messages of a request.

    Attributes:
      system: text before the first turn; empty without any.
      history: earlier turns.
      query: the last message.
    """

    system: str
    history: list[Turn]
    query: str


def parse_messages(messages: Any) -> Conversation:
    """Messages as turns; the last one must be the user's.

    System messages are joined before the first turn; several messages of one side in a row are one.

    Raises:
      RequestError: the messages are something else.
    """
    if not isinstance(messages, list) or not messages:
        raise RequestError(400, "messages must be a list of messages", field="messages")
    system: list[str] = []
    sides: list[tuple[str, str]] = []
    for number, message in enumerate(messages):
        role, content = _message(message, f"messages[{number}]")
        if role == "system":
            system.append(content)
        elif sides and sides[-1][0] == role:
            sides[-1] = (role, f"{sides[-1][1]}\n{content}")
        else:
            sides.append((role, content))
    if not sides or sides[-1][0] != "user":
        raise RequestError(400, "the last message must be the user's", field="messages")
    if sides[0][0] == "assistant":
        sides.insert(0, ("user", ""))
    history = [Turn(sides[index][1], sides[index + 1][1]) for index in range(0, len(sides) - 1, 2)]
    return Conversation("".join(f"{text}\n" for text in system), history, sides[-1][1])


def _message(message: Any, name: str) -> tuple[str, str]:
    if not isinstance(message, dict):
        raise RequestError(400, f"{name} must be an object", field=name)
    role = message.get("role")
    roles = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
    if not isinstance(role, str) or role not in roles:
        known = ", ".join(roles)
        raise RequestError(400, f"{name}.role is {role!r}, but must be one of {known}", field=name)
    content = message.get("content")
    if isinstance(content, list):
        parts = [_part(part, f"{name}.content") for part in content]
        content = "".join(parts)
    if not isinstance(content, str):
        raise RequestError(400, f"{name}.content must be text", field=f"{name}.content")
    return roles[role], checked_text(content, f"{name}.content")


def _part(part: Any, name: str) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return part["text"]
    raise RequestError(400, f"{name} has a part that is not text", field=name)


def checked_text(text: str, field: str) -> str:
    """A text of a request.

    Raises:
      RequestError: it has half of a character, which could not be encoded.
    """
    if LONE_SURROGATE.search(text):
        raise RequestError(400, f"{field} has a lone surrogate, half of a character", field=field)
    return text
