"""The step of a run of either kind, pretraining or finetuning, compiled for TPUs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from glm_jax.compile.finetune_step import compile_finetune_step
from glm_jax.compile.report import StepReport
from glm_jax.compile.step import compile_step
from glm_jax.compile.topology import Topology
from glm_jax.configure import PACKAGE, read_decoding
from glm_jax.errors import UsageError
from glm_jax.finetune.config import FinetuneBaseConfig, FinetuneRunConfig
from glm_jax.model.config import GLMConfig
from glm_jax.seq2seq.config import Seq2SeqRunConfig
from glm_jax.train.config import RunConfig

FOLDERS = ("configs/models", "configs/chatglm")


def compile_any_step(
    config: RunConfig | FinetuneRunConfig | Seq2SeqRunConfig,
    topology: Topology,
    name: str,
    compiler_options: Mapping[str, str | bool | int],
    model_file: str | None = None,
) -> StepReport:
    """`compile_step` or `compile_finetune_step`.

    Args:
      config, topology, name, compiler_options: as in `compile_step`.
      model_file: with the network of a finetuning run; None for the one of configs/models/ or
        configs/chatglm/ that is named as its initial weights.

    Raises:
      UsageError: also for a network that is not known, or given twice.
    """
    if not isinstance(config, RunConfig):
        network = network_of(config, model_file)
        return compile_finetune_step(config, network, topology, name, compiler_options)
    if model_file is not None:
        raise UsageError(f"--model_file is for finetuning runs, and {name} describes its own model")
    return compile_step(config, topology, name, compiler_options)


def network_of(config: FinetuneBaseConfig, model_file: str | None = None) -> GLMConfig:
    """The network that a finetuning run starts from, without its weights.

    Raises:
      UsageError: the file does not exist, or no network is named as the initial weights.
    """
    if model_file is not None:
        return read_decoding(model_file).network
    weights = config.finetune.initial_weights
    name = PurePosixPath(weights.rstrip("/")).name.replace("-", "_")
    files = [file for folder in FOLDERS if (PACKAGE / (file := f"{folder}/{name}.gin")).is_file()]
    if not files:
        raise UsageError(
            f"no network in {' or '.join(FOLDERS)} is named as finetune.initial_weights "
            f"{weights}; expected --model_file=FILE"
        )
    return network_of(config, files[0])
