"""The public names of every package, which are imported on first use."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import glm_jax

ROOT = Path(glm_jax.__file__).parent
PACKAGES = sorted(
    ".".join((ROOT.name, *path.parent.relative_to(ROOT).parts))
    for path in ROOT.rglob("__init__.py")
    if "lazy_exports(" in path.read_text()
)


def names_for_type_checkers(package: str) -> set[str]:
    """What a package imports under `if TYPE_CHECKING`."""
    module = importlib.import_module(package)
    tree = ast.parse(Path(module.__file__ or "").read_text())
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name for node in imports for alias in node.names}


def test_there_are_such_packages():
    assert {"glm_jax", "glm_jax.convert.layouts", "glm_jax.convert.formats"} <= set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_found(package):
    module = importlib.import_module(package)
    assert names_for_type_checkers(package) == set(module.__all__)
    for name in module.__all__:
        assert getattr(module, name).__name__ == name if name != "OPTIMIZERS" else module.OPTIMIZERS
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'no_such'"):
        _ = module.no_such
