"""What a client is told when it does not get what it asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

# A message may repeat what the client sent; so much of it is enough.
LONGEST_MESSAGE = 300


class RequestError(Exception):
    """A request that is answered with a status of 400 or more, and one sentence."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        """Takes what the client is told.

        Args:
          status: of the answer.
          message: one sentence.
          field: the field of the request's body that is at fault, if one is.
          headers: of the answer.
        """
        short = message if len(message) <= LONGEST_MESSAGE else message[:LONGEST_MESSAGE] + "..."
        super().__init__(short)
        self.status = status
        self.field = field
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """What the answer says, as JSON."""
        return {"error": {"message": str(self), "field": self.field}}

    def response(self) -> Response:
        """The whole answer."""
        return JSONResponse(self.body(), self.status, self.headers)


class JSONResponse(Response):
    """An answer in JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return to_json(content)


def to_json(content: Any) -> bytes:
    """JSON in UTF-8.

    Raises:
      ValueError: it holds a number that JSON has no word for.
    """
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # A lone surrogate has no bytes; as a backslash and its number it is what JSON itself writes.
    return text.encode("utf-8", "backslashreplace")


def server_fault() -> RequestError:
    """The answer where the fault is ours; what it was is for the server's log alone."""
    return RequestError(500, "the server failed at this request; its log says how")


def stopping() -> RequestError:
    """The answer to requests that the server will not come to."""
    return RequestError(503, "the server is stopping", headers={"Retry-After": "5"})
