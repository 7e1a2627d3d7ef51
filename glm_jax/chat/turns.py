"""The turns of a conversation."""

from __future__ import annotations

from typing import NamedTuple


class Turn(NamedTuple):
    """A question and its answer."""

    query: str
    answer: str
