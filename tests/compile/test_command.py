"""`glm-jax compile`, mostly told wrong things."""

from __future__ import annotations

import importlib.util
import json

import pytest

from glm_jax.cli.main import main
from glm_jax.compile.report import read_report
from tests.tiny_runs import TINY_RUN


@pytest.fixture
def tiny_gin(tmp_path):
    """A configuration of a tiny model."""
    path = tmp_path / "tiny.gin"
    path.write_text(TINY_RUN.format(store="nowhere", run_folder=str(tmp_path / "run")))
    return path


def complaint(capsys, *arguments: object) -> str:
    """The sentence of a command that ends with 2."""
    assert main(["compile", *map(str, arguments)]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("name", ["v5p", "v9:4x4", "v5p:4x", "v5p:4", "v5p 4x4x4"])
def test_unknown_topologies(capsys, tiny_gin, name):
    assert repr(name) in complaint(capsys, f"--gin_file={tiny_gin}", f"--topology={name}")


def test_number_of_slices(capsys, tiny_gin):
    flags = (f"--gin_file={tiny_gin}", "--topology=v5p:4x4x4", "--num_slices=0")
    assert "--num_slices is 0" in complaint(capsys, *flags)


def test_the_compiler_is_not_installed(capsys, tiny_gin, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = complaint(capsys, f"--gin_file={tiny_gin}", "--topology=v5e:2x2")
    assert "pip install libtpu" in message


def test_nothing_to_compile(capsys):
    assert "--gin_file" in complaint(capsys, "--topology=v5e:2x2")


def test_nothing_to_compare_with(capsys, tiny_gin):
    message = complaint(capsys, "--topology=v5e:2x2", "--compare", tiny_gin)
    assert "--compare has one" in message


def test_json_of_a_comparison(capsys, tiny_gin, tmp_path):
    flags = ("--topology=v5e:2x2", f"--json={tmp_path / 'a.json'}", "--compare")
    assert "--json" in complaint(capsys, *flags, tiny_gin, tiny_gin)


def test_json_into_no_folder(capsys, tiny_gin, tmp_path):
    flags = (f"--gin_file={tiny_gin}", f"--json={tmp_path / 'no' / 'a.json'}")
    assert "folder does not exist" in complaint(capsys, *flags, "--topology=v5e:2x2")


def test_a_compiler_option_without_a_value(capsys, tiny_gin):
    flags = (f"--gin_file={tiny_gin}", "--compiler_option=xla_something")
    assert "NAME=VALUE" in complaint(capsys, *flags, "--topology=v5e:2x2")


def test_a_mesh_of_another_size(capsys, tiny_gin):
    pytest.importorskip("libtpu")
    flags = (f"--gin_file={tiny_gin}", "--topology=v5e:2x2", "--gin.mesh.data=3")
    assert "devices" in complaint(capsys, *flags)


def test_an_impossible_slice(capsys, tiny_gin):
    pytest.importorskip("libtpu")
    message = complaint(capsys, f"--gin_file={tiny_gin}", "--topology=v5p:3x5x7")
    assert "v5p:3x5x7" in message


def test_a_step_is_compiled_and_compared_with_itself(capsys, tiny_gin, tmp_path):
    pytest.importorskip("libtpu")
    path = tmp_path / "step.json"
    flags = ["compile", f"--gin_file={tiny_gin}", "--topology=v5e:2x2", f"--json={path}"]
    assert main(flags) == 0
    report = read_report(path)
    assert (report.chips, report.batch_per_chip, report.fits) == (4, 2, True)
    assert report.product_flops > 0
    told = capsys.readouterr().out
    assert json.loads(path.read_text())["verdict"] in told

    assert main(["compile", "--topology=v5e:2x2", "--compare", str(path), str(path)]) == 0
    assert "1.00" in capsys.readouterr().out


@pytest.mark.slow
def test_a_step_that_does_not_fit_ends_with_1(capsys, tiny_gin):
    pytest.importorskip("libtpu")
    flags = [f"--gin_file={tiny_gin}", "--topology=v5e:1x1", "--gin.data.batch_size=8000000"]
    assert main(["compile", *flags]) == 1
    assert "does not fit" in capsys.readouterr().err
