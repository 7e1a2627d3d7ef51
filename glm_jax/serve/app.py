"""The application: paths, who may use them, and a line in the log for each request."""

from __future__ import annotations

import datetime
import hmac
import ipaddress
import logging
import sys
import time
from collections.abc import MutableMapping
from typing import Any, TextIO
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from glm_jax.serve.endpoints import Endpoints
from glm_jax.serve.errors import RequestError, server_fault
from glm_jax.serve.metrics import Metrics

# Paths that need no token: the pages, which ask for it, and the health check.
OPEN_PATHS = frozenset({"/", "/chat", "/health"})
# Names of this machine to itself; the address that is served on is another.
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
# As nginx logs that the client left before its answer was complete.
CLIENT_LEFT = 499

logger = logging.getLogger(__name__)


def make_app(
    endpoints: Endpoints,
    metrics: Metrics,
    *,
    token: str | None = None,
    local_only: bool = False,
    log: TextIO | None = None,
) -> ASGIApp:
    """The application.

    Args:
      endpoints: what each path answers.
      metrics: where requests are counted.
      token: required from clients, except for `OPEN_PATHS`.
      local_only: refuse requests that name this server as anything but this machine.
      log: receives one line per request; standard error by default.
    """
    routes = [
        Route("/", endpoints.page, methods=["GET"]),
        Route("/health", endpoints.health, methods=["GET"]),
        Route("/metrics", endpoints.metrics, methods=["GET"]),
        Route("/v1/model", endpoints.model, methods=["GET"]),
        Route("/v1/fill", endpoints.fill, methods=["POST"]),
        Route("/v1/score", endpoints.score, methods=["POST"]),
        Route("/chat", endpoints.chat_page, methods=["GET"]),
        Route("/v1/models", endpoints.openai.models, methods=["GET"]),
        Route("/v1/models/{name:path}", endpoints.openai.model, methods=["GET"]),
        Route("/v1/chat/completions", endpoints.openai.chat, methods=["POST"]),
        Route("/v1/completions", endpoints.openai.completions, methods=["POST"]),
    ]
    handlers: Any = {
        RequestError: _answer_refusal,
        HTTPException: _answer_http_exception,
        ClientDisconnect: _answer_client_left,
        Exception: _answer_fault,
    }
    app: ASGIApp = Starlette(routes=routes, exception_handlers=handlers)
    app = TokenGuard(app, token)
    if local_only:
        app = LocalHosts(app)
    paths = frozenset(route.path for route in routes)
    return Observer(app, metrics, paths, log or sys.stderr)


class LocalHosts:
    """Refuses requests for names of other machines than this one.

    Without this, any web page could give its own name the address of this machine, and then use the
    server through the browser of whoever looks at the page.
    """

    def __init__(self, app: ASGIApp):
        self._app = app
        self._refuse = RequestError(421, "this server answers only to the names of this machine")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        accepted = False

        async def accept(_scope: Scope, _receive: Receive, _send: Send) -> None:
            nonlocal accepted
            accepted = True

        async def discard(_message: MutableMapping[str, Any]) -> None:
            """The middleware's own refusal is plain text."""

        address = (scope.get("server") or LOCAL_NAMES)[0]
        names = [*LOCAL_NAMES, address]
        await TrustedHostMiddleware(accept, names, www_redirect=False)(scope, receive, discard)
        await (self._app if accepted else self._refuse.response())(scope, receive, send)


class TokenGuard:
    """Lets through those who show the token."""

    def __init__(self, app: ASGIApp, token: str | None):
        """Takes the same as `make_app`."""
        self._app = app
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope)
        await (self._app if refusal is None else refusal.response())(scope, receive, send)

    def _refusal(self, scope: Scope) -> RequestError | None:
        if self._token is None or scope["path"] in OPEN_PATHS:
            return None
        given_header = Headers(scope=scope).get("authorization", "")
        scheme, _, given = given_header.encode("latin-1").partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), self._token):
            return None
        message = "this server asks for a token: Authorization: Bearer TOKEN"
        return RequestError(401, message, headers={"WWW-Authenticate": "Bearer"})


class Observer:
    """Counts and logs every request, and keeps faults from the client."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str], log: TextIO):
        """Takes the application, and the paths that are counted by name."""
        self._app = app
        self._metrics = metrics
        self._paths = paths
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        start = time.monotonic()
        status, complete = 0, False

        async def observed(message: MutableMapping[str, Any]) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                complete = not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, receive, observed)
        except Exception:
            logger.exception("a request failed")
            if not status:
                await server_fault().response()(scope, receive, observed)
        finally:
            status = status if complete else CLIENT_LEFT
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._metrics.requests.labels(path, str(status)).inc()
            self._write(scope, status, time.monotonic() - start)

    def _write(self, scope: Scope, status: int, seconds: float) -> None:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        client = (scope.get("client") or ("-",))[0]
        # Quoted, so that no path can start a new line of the log.
        path = quote(scope["path"])[:200]
        print(
            f"{now} {client} {scope['method']} {path} {status} {seconds:.3f}s",
            file=self._log,
            flush=True,
        )


def is_local(address: str) -> bool:
    """Whether an IP address is one of this machine to itself."""
    return ipaddress.ip_address(address).is_loopback


async def _answer_refusal(_request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, RequestError)
    return refusal.response()


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    messages = {
        404: "there is nothing at this path",
        405: f"this path does not take {request.method}",
    }
    message = messages.get(error.status_code, error.detail)
    return RequestError(error.status_code, message, headers=error.headers).response()


async def _answer_client_left(_request: Request, _error: Exception) -> Response:
    return Response(status_code=CLIENT_LEFT)


async def _answer_fault(_request: Request, _error: Exception) -> Response:
    return server_fault().response()
