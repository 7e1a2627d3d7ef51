"""The recorded numbers of the published code, and what it takes to run our network on them."""

from __future__ import annotations

import json
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from glm_jax.convert.load import load
from glm_jax.model import GLM
from glm_jax.model.chatglm_inputs import SpecialIds, context_length, positions_of
from tests.conftest import SHARED

FOLDER = SHARED / "goldens" / "i_chatglm"
# Ids of the special tokens in the two small vocabularies.
SPECIAL = {"MASK": 300, "gMASK": 301, "sop": 304, "eop": 305}
MIXED_SPECIAL = {"MASK": 210, "gMASK": 211, "sop": 214, "eop": 215}
TOLERANCE = 1e-4


@cache
def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{name}.npz") as file:
        return dict(file)


@cache
def facts(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text())


@cache
def network(folder: str, base: str | None = None) -> tuple[GLM, Any]:
    model, params = load(FOLDER / folder, base=base and FOLDER / base)
    assert isinstance(model, GLM)
    return model, params


def inputs_of(
    ids: np.ndarray, special: dict[str, int] = SPECIAL, *, two_dimensional: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids with positions and prefix lengths made from them."""
    rows, names = ids.tolist(), SpecialIds.of(special)
    positions = [positions_of(row, names, two_dimensional=two_dimensional) for row in rows]
    return ids, np.stack(positions), np.array([context_length(row, names) for row in rows])


@partial(jax.jit, static_argnums=0)
def logits_of(model: GLM, params: Any, inputs: tuple, mask: np.ndarray | None = None) -> jax.Array:
    logits = model.apply({"params": params}, *inputs, attention_mask=mask)
    assert isinstance(logits, jax.Array)
    return logits


def padded_inputs(case: dict[str, np.ndarray], name: str) -> tuple[tuple, np.ndarray]:
    """The inputs of a case whose positions and mask were given, and our form of its mask."""
    ids = case[f"{name}/input_ids"]
    inputs = (ids, case[f"{name}/position_ids"], np.zeros(len(ids), np.int32))
    return inputs, ~case[f"{name}/attention_mask"]


def folder(name: str) -> Path:
    return FOLDER / name
