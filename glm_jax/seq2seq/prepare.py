"""A finetuning run that learns to write texts, opened and checked."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from functools import partial

from jax.sharding import Mesh
from jaxtyping import PyTree

from glm_jax.errors import UsageError
from glm_jax.finetune.lora import linear_kind, merge_adapters
from glm_jax.finetune.model_scores import Scorer
from glm_jax.finetune.opening import open_devices, open_network, optimizer_of, steps_of
from glm_jax.finetune.predict import Predictions
from glm_jax.finetune.prediction_files import prediction_name
from glm_jax.finetune.prepare import PreparedFinetuning
from glm_jax.finetune.program import FinetuneProgram, make_finetune_program
from glm_jax.finetune.splits import Split
from glm_jax.finetune.trainable import IsTrained
from glm_jax.model import GLM, GLMConfig, network_of
from glm_jax.model.chatglm_config import ChatGLMConfig
from glm_jax.seq2seq.config import Seq2SeqRunConfig
from glm_jax.seq2seq.evaluate import output_decoder
from glm_jax.seq2seq.generate import generate_outputs
from glm_jax.seq2seq.judge import check_packages, judge_outputs
from glm_jax.seq2seq.outputs import Output, Outputs
from glm_jax.seq2seq.pairs import encode_pairs
from glm_jax.seq2seq.read import check_tokenizer, has_references, prompts_of, read_split
from glm_jax.seq2seq.rows import RowLayout
from glm_jax.tasks.example import Example
from glm_jax.tokenizer import Tokenizer


def prepare_seq2seq(config: Seq2SeqRunConfig) -> PreparedFinetuning:
    """Opens checkpoint, tokenizer and data, and makes the program.

    Raises:
      UsageError: something is missing, can't be encoded, or does not fit the rest.
    """
    task = config.seq2seq.task
    mesh, tokenizer = open_devices(config)
    check_tokenizer(tokenizer)
    splits = read_pairs(config, tokenizer)
    opened = open_network(config, mesh, tokenizer)
    opened = dataclasses.replace(opened, config=with_prefix(config, opened.config))
    opened.check_trained(anything_added=bool(config.lora.rank or config.prefix.num_tokens))
    num_steps, per_epoch = steps_of(config, len(splits["train"].encoded))
    program = make_text_program(config, opened.config, mesh, opened.is_trained, num_steps)
    start, frozen, base = opened.divide(config, program)
    return PreparedFinetuning(
        name=task.name,
        way="by writing texts",
        metric=task.metrics[0] if task.metrics else "",
        splits=splits,
        tokenizer=tokenizer,
        model=opened.config,
        mesh=mesh,
        program=program,
        predict=partial(predict_texts, config, network_of(opened.config), tokenizer, splits),
        params_of=lambda seed: start,
        frozen=frozen,
        base=base,
        num_steps=num_steps,
        steps_per_epoch=per_epoch,
        notes=opened.notes,
    )


def make_text_program(
    config: Seq2SeqRunConfig, network: GLMConfig, mesh: Mesh, is_trained: IsTrained, num_steps: int
) -> FinetuneProgram:
    """The functions that a run of that many steps calls, and that are compiled ahead of time."""
    return make_finetune_program(
        Scorer(network_of(network, linear=linear_kind(config.lora))),
        {},
        optimizer_of(config, num_steps),
        mesh,
        token_smoothing=config.seq2seq.label_smoothing,
        accumulation_steps=config.finetune.accumulation_steps,
        layout=config.layout,
        is_trained=is_trained,
    )


def with_prefix(config: Seq2SeqRunConfig, network: GLMConfig) -> GLMConfig:
    """The network's configuration with the prefix that is trained.

    Raises:
      UsageError: the network can have none, or has another one.
    """
    prefix = config.prefix
    if not prefix.num_tokens:
        return network
    if not isinstance(network, ChatGLMConfig):
        raise UsageError(
            f"prefix.num_tokens is {prefix.num_tokens}, but only ChatGLM has prefixes, and "
            f"{config.finetune.initial_weights} is a GLM"
        )
    made = dataclasses.replace(
        network,
        num_prefix_tokens=prefix.num_tokens,
        prefix_projection=prefix.projection,
        prefix_dropout=prefix.dropout,
    )
    if network.num_prefix_tokens and made != dataclasses.replace(
        network, prefix_dropout=prefix.dropout
    ):
        raise UsageError(
            f"{config.finetune.initial_weights} has a prefix of {network.num_prefix_tokens} "
            f"tokens, which differs from prefix.num_tokens and prefix.projection"
        )
    return made


def read_pairs(config: Seq2SeqRunConfig, tokenizer: Tokenizer) -> dict[str, Split]:
    """The training split, and for tasks with metrics the dev split.

    Raises:
      UsageError: one is missing, or an example can't be trained on or judged.
    """
    settings = config.seq2seq
    layout = RowLayout(
        tokenizer.special,
        settings.source_length,
        settings.target_length,
        pad_source=settings.pad_source,
    )
    check_packages(settings.task)
    splits = {}
    for name in ("train", "dev") if settings.task.metrics else ("train",):
        few = config.finetune.max_train_examples if name == "train" else 0
        examples = read_split(settings, name, tokenizer, few, config.finetune.seed)
        if not has_references(settings.task, examples):
            raise UsageError(f"the examples of the split {name} have no targets")
        encoded = encode_pairs(settings.task, examples, tokenizer, layout, settings.seed)
        splits[name] = Split(examples, encoded)
    return splits


def predict_texts(
    config: Seq2SeqRunConfig,
    model: GLM,
    tokenizer: Tokenizer,
    splits: Mapping[str, Split],
    split: str,
    params: PyTree,
) -> Predictions:
    """Outputs for a split, judged; all processes get them.

    Args:
      config: of the run.
      model: its network.
      tokenizer: of the model.
      splits: of the task.
      split: the one that outputs are written for.
      params: of the network, and adapters.
    """
    examples, kept = splits[split].examples, Outputs()
    generate_outputs(
        output_decoder(model, merge_adapters(params, config.lora), tokenizer),
        tokenizer,
        prompts_of(config.seq2seq, examples, tokenizer),
        config.generation.sampling(config.seq2seq.target_length),
        kept,
        num_texts=min(config.generation.batch_size, len(examples)),
    )
    outputs = [kept.outputs[str(example.guid)] for example in examples]
    original = config.seq2seq.original_rouge
    found = judge_outputs(config.seq2seq.task, examples, outputs, tokenizer, original=original)
    return Predictions(
        labels=(),
        metrics={name: estimate.value for name, estimate in found.items()},
        files={prediction_name(split): output_lines(examples, outputs)},
    )


def output_lines(examples: Sequence[Example], outputs: Sequence[Output]) -> bytes:
    """A line of JSON for each output."""
    lines = [
        json.dumps(dataclasses.asdict(output) | {"idx": example.idx}, ensure_ascii=False)
        for example, output in zip(examples, outputs, strict=True)
    ]
    return ("\n".join(lines) + "\n").encode()
