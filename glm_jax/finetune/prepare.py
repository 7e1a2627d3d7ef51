"""A finetuning run opened and checked, before anything is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import PyTree

from glm_jax.convert.load import load_glm
from glm_jax.errors import UsageError
from glm_jax.finetune.batches import steps_per_epoch
from glm_jax.finetune.config import FinetuneRunConfig
from glm_jax.finetune.heads import ClassificationHead
from glm_jax.finetune.model_scores import Scorer
from glm_jax.finetune.program import Extras, FinetuneProgram, make_finetune_program
from glm_jax.finetune.prompts import PromptEncoder
from glm_jax.finetune.splits import Split, longest_answer, read_splits
from glm_jax.model import GLM, GLMConfig
from glm_jax.parallel.mesh import check_batch_size, make_mesh
from glm_jax.tasks import Task
from glm_jax.tokenizer import Tokenizer, load_tokenizer


@dataclass(frozen=True)
class PreparedFinetuning:
    """What a run is made of.

    Attributes:
      task: what is learnt.
      splits: "train" and, where their files are there, "dev" and "test".
      tokenizer: of the model.
      model: the network's configuration.
      mesh: the devices.
      program: the functions of its steps.
      params: of the network before the first step.
      num_steps: of all epochs.
      steps_per_epoch: of one.
    """

    task: Task
    splits: Mapping[str, Split]
    tokenizer: Tokenizer
    model: GLMConfig
    mesh: Mesh
    program: FinetuneProgram
    params: PyTree
    num_steps: int
    steps_per_epoch: int


def prepare_finetuning(
    config: FinetuneRunConfig, names: Sequence[str] = ("train", "dev", "test")
) -> PreparedFinetuning:
    """Opens checkpoint, tokenizer and data, encodes the splits, and makes the program.

    Args:
      config: the run.
      names: of the splits, the first of which must be there.

    Raises:
      UsageError: something is missing, can't be encoded, or does not fit the rest.
    """
    settings, task = config.finetune, config.task.task
    mesh = make_mesh(config.mesh)
    check_batch_size(settings.batch_size // settings.accumulation_steps, mesh)
    check_batch_size(settings.evaluation_batch_size, mesh)
    tokenizer = find_tokenizer(config)
    splits = read_splits(config, task, tokenizer, names)
    loaded, params = load_glm(
        settings.initial_weights,
        num_attention_heads=settings.num_attention_heads or None,
        mesh=mesh,
        ignore_extra=True,
    )
    model = network_of(config, loaded.config, tokenizer)
    per_epoch = steps_per_epoch(len(splits[names[0]].examples), settings.batch_size)
    num_steps = settings.epochs * per_epoch
    scorer, extras = make_scorer(config, GLM(model), task, splits)
    program = make_program(config, scorer, extras, mesh, num_steps)
    return PreparedFinetuning(
        task, splits, tokenizer, model, mesh, program, params, num_steps, per_epoch
    )


def make_program(
    config: FinetuneRunConfig, scorer: Scorer, extras: Extras, mesh: Mesh, num_steps: int
) -> FinetuneProgram:
    """The functions that a run of that many steps calls, and that are compiled ahead of time."""
    decay_steps = config.optimizer.decay_steps or max(num_steps, 1)
    return make_finetune_program(
        scorer,
        extras,
        dataclasses.replace(config.optimizer, decay_steps=decay_steps),
        mesh,
        seed=config.finetune.seed,
        loss=config.task.loss,
        label_smoothing=config.task.label_smoothing,
        accumulation_steps=config.finetune.accumulation_steps,
        layout=config.layout,
    )


def find_tokenizer(config: FinetuneRunConfig) -> Tokenizer:
    """The tokenizer that the configuration names, or that lies with the initial weights."""
    named = config.tokenizer
    if named.kind:
        return load_tokenizer(
            named.kind,
            *named.files,
            task_mask=named.task_mask,
            fix_command_token=named.fix_command_token,
        )
    try:
        return load_tokenizer(config.finetune.initial_weights)
    except UsageError as error:
        raise UsageError(
            f"{config.finetune.initial_weights} has no tokenizer with it; set tokenizer.kind and "
            "tokenizer.files"
        ) from error


def network_of(config: FinetuneRunConfig, loaded: GLMConfig, tokenizer: Tokenizer) -> GLMConfig:
    """The network's configuration: that of the checkpoint with the run's dropout and dtype.

    Raises:
      UsageError: the checkpoint has another vocabulary, or too few positions.
    """
    if tokenizer.vocab_size > loaded.vocab_size:
        raise UsageError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, more than the {loaded.vocab_size} "
            f"of finetune.initial_weights {config.finetune.initial_weights}"
        )
    if config.task.sequence_length > loaded.max_sequence_length:
        raise UsageError(
            f"task.sequence_length is {config.task.sequence_length}, but the position tables of "
            f"{config.finetune.initial_weights} end at {loaded.max_sequence_length}; convert it "
            "with --max_sequence_length first"
        )
    return with_settings(config, loaded)


def with_settings(config: FinetuneRunConfig, network: GLMConfig) -> GLMConfig:
    """A network's configuration with the run's dropout and dtype."""
    settings = config.finetune
    return dataclasses.replace(
        network,
        embedding_dropout=settings.dropout,
        hidden_dropout=settings.dropout,
        attention_dropout=settings.dropout,
        compute_dtype=settings.compute_dtype,
        remat=settings.remat,
    )


def make_scorer(
    config: FinetuneRunConfig, model: GLM, task: Task, splits: Mapping[str, Split]
) -> tuple[Scorer, Extras]:
    """`scorer_of` the examples of these splits."""
    arrays = next(iter(splits.values())).encoded.arrays
    length = (
        max(longest_answer(split.encoded) for split in splits.values()) if config.task.cloze else 0
    )
    return scorer_of(
        config, model, task, has_choices=arrays["tokens"].ndim == 3, answer_length=length
    )


def scorer_of(
    config: FinetuneRunConfig, model: GLM, task: Task, *, has_choices: bool, answer_length: int
) -> tuple[Scorer, Extras]:
    """How answers are scored, and what makes the parameters that the network does not have.

    Args:
      config: the run.
      model: its network.
      task: of the run.
      has_choices: whether an example has a row for each choice.
      answer_length: tokens of the longest scored answer, 0 where verbalizers are compared.
    """
    size = model.config.hidden_size
    if not config.task.cloze:
        head = ClassificationHead(1 if has_choices else len(task.labels), size)

        def init_head(key: jax.Array) -> PyTree:
            return head.init(key, jnp.zeros((1, size)))["params"]

        scorer = Scorer(model, head=head, pool=config.task.pool)
        return scorer, {"classification_head": init_head}
    scorer = Scorer(
        model,
        answer_length=answer_length,
        length_penalty=config.task.length_penalty,
    )
    if not config.prompt.total:
        return scorer, {}
    encoder = PromptEncoder(config.prompt.total, size, config.prompt.encoder)

    def init_prompts(key: jax.Array) -> PyTree:
        return encoder.init(key)["params"]

    return dataclasses.replace(scorer, prompts=encoder), {"prompt_encoder": init_prompts}
