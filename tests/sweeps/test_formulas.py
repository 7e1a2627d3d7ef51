"""Formulas of sweep files: they compute, and do nothing else."""

from __future__ import annotations

import pytest

from glm_jax.errors import UsageError
from glm_jax.sweeps.formulas import evaluate_formula

VALUES = {"model.num_layers": 4, "flops_per_step": 2.5e6, "name": "adamw", "seed": 3}


def value(formula: str):
    return evaluate_formula("sweep.formulas", formula, VALUES.__getitem__)


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("1 + 2 * 3 ** 2 - 4 / 2", 17),
        ("7 // 2 + 7 % 4", 6),
        ("-model.num_layers", -4),
        ("round(1e9 / flops_per_step)", 400),
        ("model.num_layers if seed == 3 else 0", 4),
        ("name in ('adamw', 'lion') and not seed > 3", True),
        ("1 < model.num_layers <= 4", True),
        ("max(1, min(9, seed))", 3),
        ("ceil(log2(9)) + floor(sqrt(8)) + int(2.9)", 8),
        ("'a' 'b'", "ab"),
        ("(1, seed)", (1, 3)),
        ("seed == 4 or name != 'sgd'", True),
    ],
)
def test_values(formula, expected):
    assert value(formula) == expected


@pytest.mark.parametrize(
    "formula",
    [
        "__import__('os').system('true')",
        "open('/etc/passwd')",
        "().__class__",
        "[x for x in (1, 2)]",
        "lambda: 1",
        "name.upper()",
        "max(1, 2, key=abs)",
        "max(*(1, 2))",
        "f'{seed}'",
        "seed if (seed := 4) else 0",
        "name[0]",
        "b'a'",
        "1j",
        "'a' * 1000000000",
        "'%1000000000d' % 1",
        "2 ** 100000",
        "(2 ** 900) ** 900",
        "1 is 1",
        "sqrt(-1)",
        "1 / 0",
        "'a' + 1",
        "10.0 ** 999",
        "(" * 500 + "1" + ")" * 500,
        "-" * 100000 + "1",
        "1; 2",
        "",
        "import os",
    ],
)
def test_all_else_is_refused_in_one_sentence(formula):
    with pytest.raises(UsageError, match=r"sweep\.formulas has") as caught:
        value(formula)
    assert "\n" not in str(caught.value).replace(formula, "")
