"""The forward pass against numbers recorded from the original code."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from glm_jax.convert.load import load as load_checkpoint
from tests.conftest import SHARED
from tests.parity.golden_forward import TOLERANCE, model_parallel_rows, model_rows
from tests.parity.rows import Row

MODELS = sorted(path.name for path in (SHARED / "goldens/a_forward").glob("*"))


def load(path: Path, num_attention_heads: int) -> tuple[Any, Any]:
    return load_checkpoint(path, num_attention_heads=num_attention_heads)


def check(rows: Iterable[Row]) -> list[Row]:
    rows = list(rows)
    assert rows
    assert not [row for row in rows if not row.passed]
    return rows


@pytest.mark.parametrize("name", MODELS or ["none"])
def test_every_recorded_number_of_a_model_is_ours(shared, name):
    rows = check(model_rows(shared / "goldens" / "a_forward" / name, load))
    assert {row.tolerance for row in rows} == {TOLERANCE}
    quantities = {row.quantity.split(" ")[0] for row in rows}
    assert {"logits", "mem_0", "mem_1", "mem_2"} <= quantities


def test_ranks_merge_to_the_recorded_model(shared):
    rows = check(model_parallel_rows(shared / "goldens" / "b_model_parallel", load))
    assert [row.golden for row in rows] == [f"b_model_parallel/mp{n}" for n in (1, 2, 4)]


def test_other_weights_do_not_pass(shared):
    def load_changed(path: Path, num_attention_heads: int) -> tuple[Any, Any]:
        model, params = load(path, num_attention_heads)
        output = params["layers"]["attention"]["output"]
        output["kernel"] = output["kernel"].at[1, 3, 5].add(0.01)
        return model, params

    rows = list(model_parallel_rows(shared / "goldens" / "b_model_parallel", load_changed))
    assert rows and not any(row.passed for row in rows)
