"""Which network a finetuning step is compiled for, and that it is compiled."""

from __future__ import annotations

import pytest

from glm_jax.cli.main import main
from glm_jax.compile.any_step import network_of
from glm_jax.compile.hardware import hardware_configs
from glm_jax.compile.report import read_report
from glm_jax.configure import PACKAGE, read_any_configuration
from glm_jax.errors import UsageError
from glm_jax.finetune.config import FinetuneRunConfig
from glm_jax.train.config import RunConfig

TINY = """
model.vocab_size = 384
model.num_layers = 2
model.hidden_size = 128
model.num_attention_heads = 2
model.max_sequence_length = 128
"""


def configuration(*bindings: str) -> FinetuneRunConfig:
    config = read_any_configuration([PACKAGE / "configs/finetune/rte_10b.gin"], bindings)
    assert isinstance(config, FinetuneRunConfig)
    return config


def test_sections_decide_what_a_configuration_describes():
    assert configuration().task.name == "rte"
    other = read_any_configuration([PACKAGE / "configs/runs/demo.gin"])
    assert isinstance(other, RunConfig)


def test_the_network_is_named_as_the_initial_weights():
    assert network_of(configuration()).num_layers == 48
    weights = "finetune.initial_weights=gs://bucket/glm_large/"
    assert network_of(configuration(weights)).num_layers == 24
    weights = "finetune.initial_weights=checkpoints/chatglm-6b-int4"
    assert network_of(configuration(weights)).quantization == "int4"
    with pytest.raises(UsageError, match="--model_file"):
        network_of(configuration("finetune.initial_weights=somewhere/else"))


def test_the_network_of_a_file(tmp_path):
    file = tmp_path / "tiny.gin"
    file.write_text(TINY)
    assert network_of(configuration(), str(file)).num_layers == 2
    file.write_text(TINY + "data.batch_size = 3\n")
    with pytest.raises(UsageError, match=r"data.batch_size is set"):
        network_of(configuration(), str(file))


def test_a_pretraining_run_has_its_own_model(capsys):
    pytest.importorskip("libtpu")
    flags = ["compile", "--gin_file=configs/runs/demo.gin", "--topology=v5e:2x2"]
    assert main([*flags, "--model_file=configs/models/demo.gin"]) == 2
    assert "--model_file is for finetuning runs" in capsys.readouterr().err


def test_finetuning_on_every_recommended_slice_has_the_recipes_batch():
    for hardware in hardware_configs(PACKAGE / "configs/hardware/finetune"):
        config = read_any_configuration([hardware.path])
        assert not isinstance(config, RunConfig)
        recipe = read_any_configuration([PACKAGE / f"configs/finetune/{hardware.model}.gin"])
        assert not isinstance(recipe, RunConfig)
        assert config.finetune.batch_size == recipe.finetune.batch_size
        assert config.mesh.fsdp * config.mesh.fsdp_minor == hardware.chips


@pytest.mark.slow
@pytest.mark.parametrize("task", ["rte", "record"])
def test_a_finetuning_step_is_compiled(tmp_path, task):
    pytest.importorskip("libtpu")
    file, report = tmp_path / "tiny.gin", tmp_path / "step.json"
    file.write_text(TINY)
    flags = [f"--gin_file=configs/finetune/{task}_10b.gin", f"--model_file={file}"]
    flags += ["--gin.task.sequence_length=96", "--topology=v5e:2x2", f"--json={report}"]
    assert main(["compile", *flags]) == 0
    found = read_report(report)
    # ReCoRD has its answers behind the text: 10 of 8 tokens.
    expected = {"rte": (64, 96), "record": (64, 96 + 96)}[task]
    assert (found.batch_size, found.sequence_length) == expected
    assert found.model_flops > 0
