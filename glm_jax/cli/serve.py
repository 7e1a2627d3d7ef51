"""Fill blanks, score answers and chat over HTTP, for many clients at a time.

    glm-jax serve runs/demo
    curl -H 'Content-Type: application/json' http://127.0.0.1:8000/v1/fill \\
        -d '{"text": "The function returns a [MASK] of strings."}'

Clients of OpenAI's API find chat and completions under /v1, and a browser pages for both at the
same address and at /chat. SIGTERM and Ctrl-C end the server once running
requests are answered. docs/serve.md describes the API.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

from etils import epath

from glm_jax.cli.fill import add_checkpoint_arguments, load_filler
from glm_jax.errors import UsageError
from glm_jax.io.hub import checkpoint_name
from glm_jax.io.paths import resolve_path

HELP = "fill blanks, score answers and chat over HTTP, with pages for browsers"
TOKEN_VARIABLE = "GLM_JAX_TOKEN"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    add_checkpoint_arguments(parser)
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to serve on (127.0.0.1: this machine alone)"
    )
    parser.add_argument(
        "--port", type=int, default=8000, metavar="N", help="port (8000); 0 takes any free one"
    )
    parser.add_argument(
        "--token_file",
        type=partial(resolve_path, name="--token_file"),
        metavar="FILE",
        help=f"file with the token that clients must show; or in the variable {TOKEN_VARIABLE}",
    )
    _add_limits(parser.add_argument_group("limits of the server"))


def _add_limits(group: argparse._ArgumentGroup) -> None:
    integer = {"type": int, "metavar": "N"}
    group.add_argument("--rows", **integer, help="texts filled concurrently (8)")
    group.add_argument(
        "--max_slots",
        **integer,
        help="tokens of a text and its blanks, as 1024, 2048, ... (1024, or the model's window)",
    )
    group.add_argument("--queue", **integer, help="requests that may wait (64)")
    group.add_argument("--max_body", **integer, help="bytes of a request's body (262144)")
    group.add_argument("--max_beams", **integer, help="beams of a request (8)")
    group.add_argument("--max_answers", **integer, help="answers scored in a request (64)")
    group.add_argument("--top", **integer, help="most probable tokens kept for every position (5)")
    group.add_argument(
        "--grace",
        type=float,
        metavar="SECONDS",
        help="how long running requests have to end at SIGTERM (30)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Loads the checkpoint and serves it."""
    import dataclasses

    from glm_jax.serve.settings import ServeSettings

    names = [field.name for field in dataclasses.fields(ServeSettings)]
    flags = {name: getattr(arguments, name) for name in names}
    given = {name: value for name, value in flags.items() if value is not None}
    ServeSettings(**given)  # refused before anything is loaded
    token = read_token(arguments.token_file)
    if not 0 <= arguments.port < 65536:
        raise UsageError(f"--port is {arguments.port}, but must be from 0 to 65535")
    if not arguments.host.strip():
        raise UsageError("--host is empty; expected a name or an address")

    from glm_jax.serve.app import is_local, make_app
    from glm_jax.serve.endpoints import Endpoints
    from glm_jax.serve.metrics import Metrics
    from glm_jax.serve.server import Server, address_of, bind, serve
    from glm_jax.serve.worker import Worker

    bound = bind(arguments.host, arguments.port)
    address, local = address_of(bound), is_local(bound.getsockname()[0])
    if token is None and not local:
        print(f"glm-jax: without a token, all who reach {address} may use it", file=sys.stderr)
    filler = load_filler(arguments)
    window = filler.config.max_sequence_length
    settings = ServeSettings(**{**limits_for(filler.trained_for or {}, window), **given})
    metrics = Metrics()
    worker = Worker(filler, settings, metrics)
    worker.start()
    name = checkpoint_name(arguments.checkpoint)
    endpoints = Endpoints(filler, worker, metrics, settings, name)
    app = make_app(endpoints, metrics, token=token, local_only=local and token is None)
    facts = endpoints.facts
    line = (
        f"serving {name}, a GLM with {facts['parameters']:,} parameters{_finetuned(facts)}, on "
        f"{address}: "
        f"{settings.rows} rows of {facts['limits']['max_slots']} slots, queue of {settings.queue}"
    )

    def started() -> None:
        print(line, flush=True)

    serve(Server(app, worker, grace=settings.grace, started=started), worker, bound)
    return 0


def limits_for(trained_for: Mapping[str, Any], window: int) -> dict[str, int]:
    """Limits that let clients have what a run was finetuned for, where the defaults do not.

    Args:
      trained_for: see `Filler.trained_for`; empty for models that only fill blanks.
      window: positions of the model.
    """
    from glm_jax.serve.settings import ServeSettings

    default = ServeSettings()
    search = trained_for.get("sampling", {})
    slots = trained_for.get("source_length", 0) + search.get("max_blank_length", 0) + 1
    return {
        "max_beams": max(default.max_beams, search.get("beams", 1)),
        "max_slots": max(default.max_slots, window, slots),
    }


def _finetuned(facts: Mapping[str, Any]) -> str:
    task = facts["trained_for"]
    return "" if task is None else f" finetuned for {task['task']}"


def read_token(file: epath.Path | None) -> str | None:
    """The token from a file, or from the environment; None where there is neither.

    Raises:
      UsageError: the file can't be read, or the token is not one that a header can carry.
    """
    if file is not None:
        try:
            token, where = file.read_text(encoding="utf-8-sig").strip(), str(file)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--token_file {file} can't be read: {error}") from error
    elif TOKEN_VARIABLE in os.environ:
        token, where = os.environ[TOKEN_VARIABLE].strip(), TOKEN_VARIABLE
    else:
        return None
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(f"the token in {where} must be printable ASCII characters without spaces")
    return token
