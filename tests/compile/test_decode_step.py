"""The network and the size of a compiled step of decoding."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import jax
import pytest

from glm_jax.cli.main import main
from glm_jax.compile.decode_step import abstract_decoding_params, compile_decode_step
from glm_jax.compile.predict import no_faster_than
from glm_jax.compile.report import read_report
from glm_jax.compile.topology import open_topology
from glm_jax.configure import PACKAGE, read_decoding
from glm_jax.errors import UsageError
from glm_jax.generate.decode_config import DecodeSize
from glm_jax.model import ChatGLMConfig, GLMConfig
from glm_jax.parallel.mesh import MeshConfig, make_mesh

PAGE_REPORTS = Path(__file__).parents[2] / "docs" / "tpu" / "decode"

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


def test_parameters_for_decoding_are_in_the_compute_dtype():
    config = GLMConfig(
        vocab_size=32, num_layers=2, hidden_size=16, num_attention_heads=2, max_sequence_length=8,
        compute_dtype="bfloat16",
    )  # fmt: skip
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    params = abstract_decoding_params(config, mesh)
    paths, _ = jax.tree_util.tree_flatten_with_path(params)
    dtypes = {"/".join(key.key for key in path): leaf.dtype for path, leaf in paths}
    norms = {name for name in dtypes if "layernorm" in name}
    assert len(norms) == 2 * (2 * 2 + 1)
    assert {str(dtypes[name]) for name in norms} == {"float32"}
    assert {str(dtype) for name, dtype in dtypes.items() if name not in norms} == {"bfloat16"}


def test_no_step_is_faster_than_what_it_reads():
    report = read_report(next(PAGE_REPORTS.glob("glm_2b-v5e-1x1.json")))
    bound = 2 * report.prediction.serial_used_seconds
    slower = no_faster_than(report.prediction, bound)
    assert slower.overlapped_seconds == slower.serial_used_seconds == bound
    assert slower.serial_utilisation == pytest.approx(report.prediction.serial_utilisation / 2)
    assert no_faster_than(report.prediction, 0.0) == report.prediction


# Ten seconds of the TPU compiler each. With many layers and a short cache, what the compiler needs
# to read the vectors of all layers ahead would be a seventh of the cache.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("topology", "num_layers", "hidden_size", "batch_size", "most_reads"),
    [("v5e:1x1", 2, 2048, 8, 2), ("v6e:1x1", 8, 512, 1, 3)],
)
def test_a_step_copies_no_cache_and_is_close_to_what_it_reads(
    topology, num_layers, hidden_size, batch_size, most_reads
):
    pytest.importorskip("libtpu")
    config = GLMConfig(
        vocab_size=1024, num_layers=num_layers, hidden_size=hidden_size,
        num_attention_heads=hidden_size // 64, max_sequence_length=1024, compute_dtype="bfloat16",
    )  # fmt: skip
    size = DecodeSize(batch_size=batch_size, cache_length=1024)
    report = compile_decode_step(config, size, open_topology(topology), "step", {})
    calls: dict[str, float] = defaultdict(float)
    for kernel in report.kernels:
        calls[kernel.name] += kernel.calls
    layers = {"decode_attention": num_layers, "decode_mlp": num_layers}
    assert calls == {**layers, "decode_logits": 1}
    cache = num_layers * 2 * batch_size * 1024 * hidden_size * 2
    assert report.memory.temporaries < 0.1 * cache
    assert report.prediction.serial_used_seconds < most_reads * report.reading_seconds
