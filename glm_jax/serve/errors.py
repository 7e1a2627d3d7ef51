"""Error responses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

# A message may quote what the client sent, so its length is limited.
MAX_MESSAGE_LENGTH = 300
# OpenAI's types of errors by status, where they are not that of any bad request.
ERROR_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class RequestError(Exception):
    """A request that is answered with a status of 400 or more and a one-sentence message."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        field: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        """Makes the error.

        Args:
          status: HTTP status.
          message: one sentence.
          field: the field of the request's body that is at fault, if one is.
          code: OpenAI's name of the fault, where it has one that clients look for.
          headers: additional response headers.
        """
        short = (
            message if len(message) <= MAX_MESSAGE_LENGTH else message[:MAX_MESSAGE_LENGTH] + "..."
        )
        super().__init__(short)
        self.status = status
        self.field = field
        self.code = code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The body of the response, before JSON encoding; its other fields are OpenAI's."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {
            "error": {
                "message": str(self),
                "field": self.field,
                "type": ERROR_TYPES.get(self.status, kind),
                "param": self.field,
                "code": self.code,
            }
        }

    def response(self) -> Response:
        """The HTTP response."""
        return JSONResponse(self.body(), self.status, self.headers)


class JSONResponse(Response):
    """An answer in JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return to_json(content)


def to_json(content: Any) -> bytes:
    """JSON in UTF-8.

    Raises:
      ValueError: it contains a number that JSON cannot represent.
    """
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # A lone surrogate has no bytes; as a backslash and its number it is what JSON itself writes.
    return text.encode("utf-8", "backslashreplace")


def server_fault() -> RequestError:
    """The response to a server-side fault; details are only in the server's log."""
    return RequestError(500, "the server failed at this request; its log says how")


def stopping() -> RequestError:
    """The response to requests that are not processed because the server is stopping."""
    return RequestError(503, "the server is stopping", headers={"Retry-After": "5"})
