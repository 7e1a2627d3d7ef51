"""Tests that load the TPU's compiler."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="module")
def take_xla_flags_away(without_xla_flags) -> None:
    """In every file of this folder."""
