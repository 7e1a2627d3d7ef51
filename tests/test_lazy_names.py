"""Sub-packages re-export their public names without importing JAX."""

import importlib
import subprocess
import sys

import pytest

DATA = ["batches", "blanks", "inspect", "order", "prepare", "sources", "store"]
PACKAGES = ["cluster", "compile", "generate", "serve", *(f"data.{name}" for name in DATA)]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there(package):
    module = importlib.import_module(f"glm_jax.{package}")
    for name in module.__all__:
        assert getattr(module, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = module.nothing


def test_packages_are_imported_without_jax_and_tensorflow():
    imports = "".join(f"import glm_jax.{package}; " for package in PACKAGES)
    code = f"{imports}import sys; sys.exit(bool({{'jax', 'tensorflow'}} & {{*sys.modules}}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
