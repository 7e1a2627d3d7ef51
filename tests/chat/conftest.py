"""The recorded chats, and the model that they were recorded with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.chat.chatglm_recipe import write_recipe


@pytest.fixture(scope="session")
def golden(shared: Path) -> dict[str, Any]:
    return json.loads((shared / "goldens/i_chatglm/chat_real.json").read_text())


@pytest.fixture(scope="session")
def recipe(golden, shared: Path, tmp_path_factory) -> Path:
    """A folder as the published one, of a small model."""
    return write_recipe(golden, shared, tmp_path_factory.mktemp("recipe") / "chatglm")
