"""What takes seconds to import and isn't used is not imported by training."""

from __future__ import annotations

import os
import subprocess
import sys

from glm_jax.cli.main import main

IMPORTS = """
import sys
from glm_jax import environment
environment.leave_out_keras()
import glm_jax.train.pretrain, glm_jax.finetune.run
print(sorted({"keras", "pandas", "sklearn", "torch"} & set(sys.modules)))
"""


def test_training_imports_neither_torch_nor_keras(process_environment, tmp_path):
    # Found before the one that is installed, if there is one.
    (tmp_path / "torch.py").write_text("raise RuntimeError('imported')\n")
    environment = process_environment(1)
    path = os.pathsep.join([str(tmp_path), environment["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS],
        env=environment | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "[]\n", done.stderr


def test_what_is_needed_later_is_imported_while_the_step_is_compiled(process_environment):
    program = """
import sys
import glm_jax.configure, glm_jax.train.pretrain
print(sorted({"tensorflow", "matplotlib", "scipy", "orbax"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=process_environment(1),
        capture_output=True,
        text=True,
    )
    assert done.stdout == "[]\n", done.stderr


def test_commands_leave_keras_out_unless_a_variable_says_otherwise(monkeypatch, capsys):
    monkeypatch.delenv("TF_USE_LEGACY_KERAS", raising=False)
    assert main(["nothing"]) == 2
    assert os.environ.pop("TF_USE_LEGACY_KERAS") == "1"
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "0")
    main(["nothing"])
    assert os.environ["TF_USE_LEGACY_KERAS"] == "0"
