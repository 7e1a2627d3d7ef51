"""The package's public names."""

import os
import subprocess
import sys

import pytest

import glm_jax
from glm_jax import environment
from glm_jax.convert.load import load

NAMES = (
    "load",
    "load_tokenizer",
    "fill",
    "score",
    "Filler",
    "Sampling",
    "GLM",
    "GLMConfig",
    "RelativeGLM",
    "RelativeGLMConfig",
)


def test_public_names_stay_what_they_are_after_their_modules_are_imported():
    assert glm_jax.load is load and glm_jax.load is load
    assert sorted(glm_jax.__all__) == sorted(NAMES)
    for name in NAMES:
        assert callable(getattr(glm_jax, name)), name
    assert set(NAMES) <= set(dir(glm_jax))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        glm_jax.lode  # noqa: B018


def test_the_package_imports_without_anything_heavy_or_a_word():
    code = "import glm_jax, sys; print(sorted({name.split('.')[0] for name in sys.modules}))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.returncode == 0 and finished.stderr == ""
    for heavy in ("jax", "tensorflow", "numpy", "gin"):
        assert f"'{heavy}'" not in finished.stdout


def test_libraries_start_silently():
    """Neither TensorFlow nor a TPU runtime without a TPU logs anything."""
    hidden = ("TF_", "TPU_", "JAX_PLATFORMS")
    code = "import glm_jax, tensorflow, jax; jax.devices(); tensorflow.constant(1)"
    kept = {name: os.environ[name] for name in os.environ if not name.startswith(hidden)}
    finished = subprocess.run(
        [sys.executable, "-c", code],
        env=kept | {"TF_USE_LEGACY_KERAS": "1"},  # no Keras, as our commands have it
        capture_output=True,
        text=True,
    )
    assert (finished.returncode, finished.stderr) == (0, "")


@pytest.mark.parametrize(("vendor", "found"), [("0x1ae0", True), ("0x8086", False)])
def test_a_machine_with_tpus_keeps_the_settings_of_their_runtime(
    vendor, found, tmp_path, monkeypatch
):
    (tmp_path / "0000:00:04.0").mkdir()
    (tmp_path / "0000:00:04.0" / "vendor").write_text(f"{vendor}\n")
    monkeypatch.setattr(environment, "PCI_DEVICES", tmp_path)
    monkeypatch.delenv("TPU_WORKER_HOSTNAMES", raising=False)
    environment.set_defaults()
    assert ("TPU_WORKER_HOSTNAMES" not in os.environ) == found
    monkeypatch.delenv("TPU_WORKER_HOSTNAMES", raising=False)
