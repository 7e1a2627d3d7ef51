"""The page of all recommended configurations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glm_jax.compile.hardware import hardware_configs, read_name
from glm_jax.compile.page import PARTS, render, report_path
from glm_jax.compile.report import report_json
from glm_jax.configure import PACKAGE
from glm_jax.errors import UsageError
from tests.compile.test_report import make_report


@pytest.mark.parametrize(
    ("name", "model", "topology", "slices", "chips"),
    [
        ("glm_10b-v5p-4x4x4", "glm_10b", "v5p:4x4x4", 1, 64),
        ("glm_10b_chinese-v5e-16x16-2slices", "glm_10b_chinese", "v5e:16x16", 2, 512),
    ],
)
def test_a_files_name_says_what_it_is_for(name, model, topology, slices, chips):
    config = read_name(Path(f"configs/hardware/{name}.gin"))
    assert (config.model, config.topology, config.num_slices) == (model, topology, slices)
    assert config.chips == chips


@pytest.mark.parametrize("name", ["glm_10b", "glm_10b-v5p", "glm_10b-v5p-4x4x4-slices"])
def test_other_names_are_refused(name):
    with pytest.raises(UsageError, match=name):
        read_name(Path(f"{name}.gin"))


def test_a_folder_is_listed_by_model_generation_and_size(tmp_path):
    names = ("b-v5e-4x4", "a-v5p-8x8x16", "a-v5p-4x4x4", "a-v5e-16x16")
    for name in names:
        (tmp_path / f"{name}.gin").touch()
    found = [config.path.stem for config in hardware_configs(tmp_path)]
    assert found == ["a-v5e-16x16", "a-v5p-4x4x4", "a-v5p-8x8x16", "b-v5e-4x4"]


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no gin files"):
        hardware_configs(tmp_path)


def test_the_page_has_a_row_for_each_that_fits_and_each_that_does_not(tmp_path):
    fitting = read_name(Path("configs/hardware/glm_2b-v5e-4x4.gin"))
    other = read_name(Path("configs/hardware/glm_2b-v5e-2x2.gin"))
    report_path(fitting, tmp_path).write_text(report_json(make_report()))
    sentence = "the step does not fit: it needs 20G of memory per chip, which has 15.75G"
    report_path(other, tmp_path).write_text(json.dumps({"digest": "", "does_not_fit": sentence}))
    lines = render([other, fitting], PARTS[0], tmp_path).splitlines()
    head = lines.index("## glm_2b")
    refused, row = lines[head + 4 : head + 6]
    assert sentence in refused
    assert "[v5e:4x4](../configs/hardware/glm_2b-v5e-4x4.gin)" in row
    assert "5.50 (2.00 + 3.00) of 95.73" in row
    assert "1.35 / 1.54 / 1.58" in row
    assert len({line.count("|") for line in lines[head + 1 : head + 6]} - {0}) == 1


def test_decoding_has_columns_of_its_own(tmp_path):
    config = read_name(Path("configs/hardware/decode/chatglm_6b-v5e-1x1.gin"))
    report = make_report(topology="v5e:1x1", batch_size=4, sequence_length=2048, read_bytes=819e6)
    report_path(config, tmp_path).write_text(report_json(report))
    lines = render([config], PARTS[-1], tmp_path).splitlines()
    titles, row = (
        [cell.strip() for cell in line.split("|")[1:-1]] for line in (lines[3], lines[5])
    )
    cells = dict(zip(titles, row, strict=True))
    assert cells["texts x cache"] == "4 x 2048"
    assert cells["reads"] == "0.82 GB, 1 ms"
    assert cells["step, ms"] == "1.35e+03 / 1.54e+03 / 1.58e+03"
    assert cells["tokens/s"] == "3"


def test_every_recommended_decoding_fills_its_slice():
    part = PARTS[-1]
    configs = hardware_configs(PACKAGE / "configs/hardware" / part.folder)
    for hardware in configs:
        config = part.read(hardware.path)
        assert config.network.compute_dtype == "bfloat16"
        assert config.network.num_attention_heads % hardware.chips == 0
    assert {config.topology.partition(":")[0] for config in configs} >= {"v5e", "v5p", "v6e"}
