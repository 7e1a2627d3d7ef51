"""OpenAI's own client for a server of these tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import openai

from tests.conftest import HANG_SECONDS
from tests.serve.running import Running

MODEL = "tiny"


@contextlib.contextmanager
def client_of(server: Running, token: str = "none") -> Iterator[openai.OpenAI]:
    """A client that tries once."""
    with openai.OpenAI(
        base_url=f"{server.url}/v1", api_key=token, max_retries=0, timeout=HANG_SECONDS
    ) as client:
        yield client
