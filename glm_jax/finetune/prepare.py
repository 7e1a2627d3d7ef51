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
from glm_jax.io.paths import resolve_path
from glm_jax.model import GLM, GLMConfig
from glm_jax.parallel.mesh import check_batch_size, make_mesh
from glm_jax.tasks import Task
from glm_jax.tokenizer import Tokenizer, load_tokenizer

# The original pads the word embedding to a multiple of 128 for each of its model-parallel ranks.
MAX_PADDING_ROWS = 8 * 128 + 1


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
    decay_steps = config.optimizer.decay_steps or max(num_steps, 1)
    scorer, extras = make_scorer(config, GLM(model), task, splits)
    program = make_finetune_program(
        scorer,
        extras,
        dataclasses.replace(config.optimizer, decay_steps=decay_steps),
        mesh,
        seed=settings.seed,
        loss=config.task.loss,
        label_smoothing=config.task.label_smoothing,
        accumulation_steps=settings.accumulation_steps,
        layout=config.layout,
    )
    return PreparedFinetuning(
        task, splits, tokenizer, model, mesh, program, params, num_steps, per_epoch
    )


def find_tokenizer(config: FinetuneRunConfig) -> Tokenizer:
    """The tokenizer that the configuration names, or that lies with the initial weights."""
    named = config.tokenizer
    if named.kind:
        tokenizer = load_tokenizer(
            named.kind,
            *named.files,
            task_mask=named.task_mask,
            fix_command_token=named.fix_command_token,
        )
        _check_recorded(config, tokenizer)
        return tokenizer
    try:
        return load_tokenizer(config.finetune.initial_weights)
    except UsageError as error:
        raise UsageError(
            f"{config.finetune.initial_weights} has no tokenizer with it; set tokenizer.kind and "
            "tokenizer.files"
        ) from error


def _check_recorded(config: FinetuneRunConfig, tokenizer: Tokenizer) -> None:
    """Makes sure that a run folder's weights are used with the tokenizer that it has.

    Raises:
      UsageError: the configuration names another one.
    """
    initial = config.finetune.initial_weights
    folder = resolve_path(initial, "finetune.initial_weights") / "tokenizer"
    if folder.is_dir() and load_tokenizer(folder).fingerprint != tokenizer.fingerprint:
        raise UsageError(
            f"{initial} has a tokenizer with it, which is another one than tokenizer.kind = "
            f"{config.tokenizer.kind!r}"
        )


def check_vocabulary(tokenizer: Tokenizer, rows: int, checkpoint: str) -> None:
    """Makes sure that a word embedding can be that of a tokenizer's vocabulary.

    Raises:
      UsageError: it has fewer rows than there are tokens, or more than padding explains.
    """
    if tokenizer.vocab_size > rows:
        raise UsageError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, more than the {rows} of {checkpoint}"
        )
    if rows >= tokenizer.padded_vocab_size + MAX_PADDING_ROWS:
        raise UsageError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, but {checkpoint} has {rows} rows of "
            "a word embedding: it is of another vocabulary"
        )


def network_of(config: FinetuneRunConfig, loaded: GLMConfig, tokenizer: Tokenizer) -> GLMConfig:
    """The network's configuration: that of the checkpoint with the run's dropout and dtype.

    Raises:
      UsageError: the checkpoint has another vocabulary, or too few positions.
    """
    initial = f"finetune.initial_weights {config.finetune.initial_weights}"
    check_vocabulary(tokenizer, loaded.vocab_size, initial)
    if config.task.sequence_length > loaded.max_sequence_length:
        raise UsageError(
            f"task.sequence_length is {config.task.sequence_length}, but the position tables of "
            f"{config.finetune.initial_weights} end at {loaded.max_sequence_length}; convert it "
            "with --max_sequence_length first"
        )
    settings = config.finetune
    return dataclasses.replace(
        loaded,
        embedding_dropout=settings.dropout,
        hidden_dropout=settings.dropout,
        attention_dropout=settings.dropout,
        compute_dtype=settings.compute_dtype,
        remat=settings.remat,
    )


def make_scorer(
    config: FinetuneRunConfig, model: GLM, task: Task, splits: Mapping[str, Split]
) -> tuple[Scorer, Extras]:
    """How answers are scored, and what makes the parameters that the network does not have."""
    size = model.config.hidden_size
    if not config.task.cloze:
        arrays = next(iter(splits.values())).encoded.arrays
        choices = arrays["tokens"].ndim == 3
        head = ClassificationHead(1 if choices else len(task.labels), size)

        def init_head(key: jax.Array) -> PyTree:
            return head.init(key, jnp.zeros((1, size)))["params"]

        scorer = Scorer(model, head=head, pool=config.task.pool)
        return scorer, {"classification_head": init_head}
    scorer = Scorer(
        model,
        answer_length=max(longest_answer(split.encoded) for split in splits.values()),
        length_penalty=config.task.length_penalty,
    )
    if not config.prompt.total:
        return scorer, {}
    encoder = PromptEncoder(config.prompt.total, size, config.prompt.encoder)

    def init_prompts(key: jax.Array) -> PyTree:
        return encoder.init(key)["params"]

    return dataclasses.replace(scorer, prompts=encoder), {"prompt_encoder": init_prompts}
