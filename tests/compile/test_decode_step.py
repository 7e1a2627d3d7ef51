"""The network and the size of a compiled step of decoding."""

from __future__ import annotations

import pytest

from glm_jax.cli.main import main
from glm_jax.configure import PACKAGE, read_decoding
from glm_jax.errors import UsageError
from glm_jax.generate.decode_config import DecodeSize
from glm_jax.model import ChatGLMConfig, GLMConfig

CHATGLM = "configs/chatglm/chatglm_6b.gin"


def test_networks_of_both_kinds_are_read_from_files():
    bindings = ["chatglm.quantization=int8", "decode.batch_size=3"]
    read = read_decoding(PACKAGE / CHATGLM, bindings)
    config, size = read.network, read.decode
    assert isinstance(config, ChatGLMConfig)
    assert (config.num_layers, config.head_size, config.quantization) == (28, 128, "int8")
    assert (size.batch_size, size.cache_length) == (3, 2048)
    assert type(read_decoding(PACKAGE / "configs/models/glm_10b.gin").network) is GLMConfig


@pytest.mark.parametrize("sizes", [{"batch_size": 0}, {"cache_length": 0}, {"cache_length": 100}])
def test_sizes_that_no_step_has_are_refused(sizes):
    with pytest.raises(UsageError, match="expected"):
        DecodeSize(**sizes)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--decode"], "--decode takes --model_file"),
        (["--decode", f"--model_file={CHATGLM}", "--gin_file=a.gin"], "neither --gin_file"),
        (["--gin_file=a.gin", "--batch_size=2"], "--batch_size is for --decode"),
        (["--decode", f"--model_file={CHATGLM}", "--batch_size=0"], "decode.batch_size is 0"),
    ],
)
def test_flags_that_do_not_go_together(flags, sentence, capsys):
    assert main(["compile", "--topology=v5e:1x1", *flags]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
