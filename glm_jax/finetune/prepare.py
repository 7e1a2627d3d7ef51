"""A finetuning run opened and checked, before anything is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import PyTree

from glm_jax.convert.base_weights import BaseWeights
from glm_jax.finetune.config import FinetuneRunConfig
from glm_jax.finetune.heads import ClassificationHead
from glm_jax.finetune.lora import linear_kind
from glm_jax.finetune.model_scores import Scorer
from glm_jax.finetune.opening import open_devices, open_network, optimizer_of, steps_of
from glm_jax.finetune.predict import Predictions, predict
from glm_jax.finetune.prediction_files import confusion_of, prediction_files
from glm_jax.finetune.priming import PrimingTexts
from glm_jax.finetune.program import Extras, FinetuneProgram, make_finetune_program
from glm_jax.finetune.prompts import PromptEncoder
from glm_jax.finetune.splits import Split, priming_texts, read_splits, scores_answer_alone
from glm_jax.finetune.trainable import IsTrained, join
from glm_jax.finetune.weights import initial_prompts
from glm_jax.model import GLM, GLMConfig, network_of
from glm_jax.parallel.mesh import check_batch_size, platform_of
from glm_jax.tasks import Task
from glm_jax.tokenizer import Tokenizer


@dataclass(frozen=True)
class PreparedFinetuning:
    """What a run is made of.

    Attributes:
      name: of what is learnt.
      way: how, in words.
      metric: the one that chooses the best checkpoint; "" where there is none.
      splits: "train" and, where their files are there, "dev" and "test".
      tokenizer: of the model.
      model: the network's configuration.
      mesh: the devices.
      program: the functions of its steps.
      predict: (split, all parameters) -> predictions on a split; all processes take part.
      params_of: seed -> trained parameters before the first step, as far as the program does not
        draw them.
      frozen: the others.
      base: where the weights are from; None where a run trains them all.
      num_steps: of all epochs.
      steps_per_epoch: of one.
      priming: texts of the pretraining objective.
      notes: lines on what the initial weights have besides the network.
    """

    name: str
    way: str
    metric: str
    splits: Mapping[str, Split]
    tokenizer: Tokenizer
    model: GLMConfig
    mesh: Mesh
    program: FinetuneProgram
    predict: Callable[[str, PyTree], Predictions]
    params_of: Callable[[int], PyTree]
    frozen: PyTree
    base: BaseWeights | None
    num_steps: int
    steps_per_epoch: int
    priming: PrimingTexts | None = None
    notes: tuple[str, ...] = ()


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
    mesh, tokenizer = open_devices(config)
    check_batch_size(settings.evaluation_batch_size, mesh)
    splits = read_splits(config, task, tokenizer, names)
    network = open_network(config, mesh, tokenizer)
    first = splits[names[0]]
    num_steps, per_epoch = steps_of(config, len(first.encoded))
    model = network_of(
        network.config,
        linear=linear_kind(config.lora),
        num_separate_layers=network.num_separate_layers,
    )
    scorer, extras = make_scorer(config, model, task, splits, platform_of(mesh))
    network.check_trained(anything_added=bool(extras or config.lora.rank))
    smoothing = config.task.label_smoothing if scores_answer_alone(task, first.examples) else 0.0
    is_trained = network.is_trained
    program = make_program(config, scorer, extras, mesh, is_trained, num_steps, smoothing)
    start, frozen, base = network.divide(config, program)
    head, notes = network.starting_head(config, program)
    table = network.params["word_embedding"]
    add_prompts = partial(initial_prompts, config, task, tokenizer, table)
    return PreparedFinetuning(
        name=task.name,
        way=way_of(config),
        metric=task.metrics[0],
        splits=splits,
        tokenizer=tokenizer,
        model=network.config,
        mesh=mesh,
        program=program,
        predict=partial(predict_split, task, splits, program, mesh, settings.evaluation_batch_size),
        params_of=lambda seed: join(start, head, add_prompts(seed)),
        frozen=frozen,
        base=base,
        num_steps=num_steps,
        steps_per_epoch=per_epoch,
        priming=priming_texts(config, task, first, tokenizer) if names[0] == "train" else None,
        notes=notes,
    )


def way_of(config: FinetuneRunConfig) -> str:
    """How a task is asked, in words."""
    task = config.task
    return f"by cloze, pattern {task.pattern}" if task.cloze else f"by a head on {task.pool}"


def predict_split(
    task: Task,
    splits: Mapping[str, Split],
    program: FinetuneProgram,
    mesh: Mesh,
    batch_size: int,
    split: str,
    params: PyTree,
) -> Predictions:
    """Predictions on one of the splits, and their files."""
    examples, encoded = splits[split].examples, splits[split].encoded
    found = predict(task, examples, encoded, program.score, params, mesh, batch_size)
    return dataclasses.replace(
        found,
        files=prediction_files(task, split, found.labels, examples),
        confusion=confusion_of(task, found.labels, examples) if found.metrics else None,
    )


def make_program(
    config: FinetuneRunConfig,
    scorer: Scorer,
    extras: Extras,
    mesh: Mesh,
    is_trained: IsTrained,
    num_steps: int,
    token_smoothing: float = 0.0,
) -> FinetuneProgram:
    """The functions that a run of that many steps calls, and that are compiled ahead of time."""
    return make_finetune_program(
        scorer,
        extras,
        optimizer_of(config, num_steps),
        mesh,
        loss=config.task.loss,
        label_smoothing=config.task.label_smoothing,
        token_smoothing=token_smoothing,
        accumulation_steps=config.finetune.accumulation_steps,
        layout=config.layout,
        is_trained=is_trained,
    )


def make_scorer(
    config: FinetuneRunConfig, model: GLM, task: Task, splits: Mapping[str, Split], platform: str
) -> tuple[Scorer, Extras]:
    """`scorer_of` the examples of these splits."""
    first = next(iter(splits.values())).encoded
    length = max(split.encoded.answer_length for split in splits.values())
    has_choices = bool(first.num_choices)
    return scorer_of(config, model, task, platform, has_choices=has_choices, answer_length=length)


def scorer_of(
    config: FinetuneRunConfig,
    model: GLM,
    task: Task,
    platform: str,
    *,
    has_choices: bool,
    answer_length: int,
) -> tuple[Scorer, Extras]:
    """How answers are scored, and what makes the parameters that the network does not have.

    Args:
      config: the run.
      model: its network.
      task: of the run.
      platform: of the devices, by JAX's name of it.
      has_choices: whether an example has a row for each choice.
      answer_length: tokens of the longest scored answer, 0 where verbalizers are compared.
    """
    size = model.config.hidden_size
    at_targets = config.finetune.computes_last_layer_at_targets(platform)
    if not config.task.cloze:
        head = ClassificationHead(1 if has_choices else len(task.labels), size)

        def init_head(key: jax.Array) -> PyTree:
            return head.init(key, jnp.zeros((1, size)))["params"]

        scorer = Scorer(model, head=head, pool=config.task.pool, last_layer_at_targets=at_targets)
        return scorer, {"classification_head": init_head}
    scorer = Scorer(
        model,
        answer_length=answer_length,
        length_penalty=config.task.length_penalty,
        normalized=config.task.loss == "adapet",
        last_layer_at_targets=at_targets,
    )
    if not config.prompt.total:
        return scorer, {}
    encoder = PromptEncoder(config.prompt.total, size, config.prompt.encoder)

    def init_prompts(key: jax.Array) -> PyTree:
        return encoder.init(key)["params"]

    return dataclasses.replace(scorer, prompts=encoder), {"prompt_encoder": init_prompts}
