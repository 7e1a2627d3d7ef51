"""What finetuning runs of all kinds open first: devices, tokenizer, weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from glm_jax.convert.base_weights import BaseWeights
from glm_jax.convert.load import load_for_finetuning
from glm_jax.errors import UsageError
from glm_jax.finetune.batches import steps_per_epoch
from glm_jax.finetune.config import FinetuneBaseConfig
from glm_jax.finetune.initial_head import initial_head
from glm_jax.finetune.positions import extend_network
from glm_jax.finetune.program import FinetuneProgram
from glm_jax.finetune.trainable import TrainedParameters, leaf_paths
from glm_jax.finetune.vocabulary import check_vocabulary, find_tokenizer
from glm_jax.finetune.weights import describe_base, divide_weights
from glm_jax.model import GLMConfig
from glm_jax.parallel.mesh import check_batch_size, make_mesh, platform_of
from glm_jax.tokenizer import Tokenizer
from glm_jax.train.optimizer import OptimizerConfig


@dataclass(frozen=True)
class Network:
    """The network of a run and its weights.

    Attributes:
      config: that of the checkpoint with the run's dropout and dtype, and positions for its rows.
      params: as they were loaded, with one stack of layers.
      num_separate_layers: how many first layers are to be a stack of their own.
      is_trained: which parameters are trained.
      head: of a classifier, where the weights came with one, by paths of parameters.
      notes: lines on what the checkpoint has besides.
    """

    config: GLMConfig
    params: PyTree
    num_separate_layers: int
    is_trained: TrainedParameters
    head: Mapping[str, np.ndarray]
    notes: tuple[str, ...]

    def divide(
        self, config: FinetuneBaseConfig, program: FinetuneProgram
    ) -> tuple[PyTree, PyTree, BaseWeights | None]:
        """The trained parameters, the frozen ones, and where they are from, if some are frozen."""
        base = None
        if config.freezes:
            base = describe_base(config, self.params, self.config.num_attention_heads)
        separate = self.num_separate_layers
        start, frozen = divide_weights(
            self.params, program, self.is_trained, num_separate_layers=separate
        )
        return start, frozen, base

    def starting_head(
        self, config: FinetuneBaseConfig, program: FinetuneProgram
    ) -> tuple[PyTree, tuple[str, ...]]:
        """The parameters of a head that came with the weights, and all lines on what did."""
        params, initial = program.abstract_state.params, config.finetune.initial_weights
        head, notes = initial_head(self.head, params, initial)
        return head, (*self.notes, *notes)

    def check_trained(self, *, anything_added: bool) -> None:
        """Makes sure that something is left to train.

        Args:
          anything_added: whether there are adapters, prompts or a head.

        Raises:
          UsageError: nothing is, or a pattern of `finetune.freeze` matches nothing.
        """
        paths = [path for path, _ in leaf_paths(self.params)]
        self.is_trained.check(paths, anything_added=anything_added)


def open_devices(config: FinetuneBaseConfig) -> tuple[Mesh, Tokenizer]:
    """The devices, which batches have to fit, and the tokenizer.

    Raises:
      UsageError: they do not fit, or there is no tokenizer.
    """
    settings = config.finetune
    mesh = make_mesh(config.mesh)
    check_batch_size(settings.batch_size // settings.accumulation_steps, mesh)
    return mesh, find_tokenizer(config.tokenizer, settings.initial_weights)


def open_network(config: FinetuneBaseConfig, mesh: Mesh, tokenizer: Tokenizer) -> Network:
    """The network that a run starts from, on its devices.

    Raises:
      UsageError: the checkpoint is missing or damaged, is of another vocabulary, has too few
        positions or layers.
    """
    settings = config.finetune
    loaded = load_for_finetuning(
        settings.initial_weights,
        num_attention_heads=settings.num_attention_heads or None,
        mesh=mesh,
    )
    extended, params = extend_network(config, loaded.model.config, loaded.params, mesh)
    initial = f"finetune.initial_weights {settings.initial_weights}"
    check_vocabulary(tokenizer, extended.vocab_size, initial)
    model = with_settings(config, extended, mesh)
    check_numbers(config, model)
    separate, is_trained = trained_parameters(config, model)
    notes = (loaded.left_out,) if loaded.left_out else ()
    return Network(model, params, separate, is_trained, loaded.head, notes)


def check_numbers(config: FinetuneBaseConfig, network: GLMConfig) -> None:
    """Refuses to train integers, or adapters of matrices of integers.

    Raises:
      UsageError: the weights are quantized, and more is trained than what is added to the network.
    """
    if network.quantization != "none" and (config.lora.rank or not config.freezes_network):
        initial = config.finetune.initial_weights
        raise UsageError(
            f"finetune.initial_weights {initial} is quantized to {network.quantization}; only a "
            f"prefix, prompts or a head can be trained on it. glm-jax convert {initial} EXPANDED "
            "--quantize=none makes it a checkpoint that can be trained"
        )


def with_settings(config: FinetuneBaseConfig, network: GLMConfig, mesh: Mesh) -> GLMConfig:
    """A network's configuration with the run's dropout and dtype, for the devices of a mesh."""
    settings = config.finetune
    return dataclasses.replace(
        network,
        embedding_dropout=settings.dropout,
        hidden_dropout=settings.dropout,
        attention_dropout=settings.dropout,
        compute_dtype=settings.compute_dtype,
        attention=settings.attention_on(platform_of(mesh)),
        remat=settings.remat,
        scan_layers=settings.scan_layers,
    )


def trained_parameters(
    config: FinetuneBaseConfig, model: GLMConfig
) -> tuple[int, TrainedParameters]:
    """How many first layers are a stack of their own, and which parameters are trained.

    Raises:
      UsageError: more layers are to be trained than there are.
    """
    settings = config.finetune
    first = settings.tune_prefix_layers
    if first > model.num_layers:
        raise UsageError(
            f"finetune.tune_prefix_layers is {first}, but the network has {model.num_layers} layers"
        )
    separate = first if first < model.num_layers else 0
    return separate, TrainedParameters(
        settings.freeze, config.freezes_network, train_layers=first > 0
    )


def steps_of(config: FinetuneBaseConfig, num_rows: int) -> tuple[int, int]:
    """The steps of the run, and of one epoch."""
    per_epoch = steps_per_epoch(num_rows, config.finetune.batch_size)
    return config.finetune.num_steps(per_epoch), per_epoch


def optimizer_of(config: FinetuneBaseConfig, num_steps: int) -> OptimizerConfig:
    """The optimizer of a run of that many steps, over which the learning rate decays."""
    decay_steps = config.optimizer.decay_steps or max(num_steps, 1)
    return dataclasses.replace(config.optimizer, decay_steps=decay_steps)
