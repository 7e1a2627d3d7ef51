"""The splits of a task, read and encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from glm_jax.errors import UsageError
from glm_jax.finetune.config import FinetuneRunConfig
from glm_jax.finetune.encoded import EncodedExamples, encode_examples
from glm_jax.finetune.priming import PrimingTexts
from glm_jax.finetune.subset import draw_subset
from glm_jax.tasks import Example, Task, has_split, read_examples
from glm_jax.tokenizer import Tokenizer

# What a right answer without wrong ones is learnt by: its tokens' cross entropy.
LOSSES_OF_ANSWER_ALONE = ("cross_entropy", "generative")


@dataclass(frozen=True)
class Split:
    """A split of the task: its examples, as they are and as rows."""

    examples: Sequence[Example]
    encoded: EncodedExamples


def read_splits(
    config: FinetuneRunConfig, task: Task, tokenizer: Tokenizer, names: Sequence[str]
) -> dict[str, Split]:
    """The splits that there are, the first of which must be.

    Raises:
      UsageError: the first split is missing, an example can't be encoded, or one of the training
        split has no label.
    """
    splits = {}
    for name in names:
        if name != names[0] and not has_split(task, config.task.data, name):
            continue
        examples = read_examples(task, config.task.data, name, cloze=config.task.cloze)
        if name == "train":
            _check_training(config, task, examples)
            if config.finetune.max_train_examples:
                examples = draw_subset(
                    task, examples, config.finetune.max_train_examples, config.finetune.seed
                )
        encoded = encode_examples(
            task,
            examples,
            tokenizer,
            sequence_length=config.task.sequence_length,
            patterns=config.task.pattern_ids,
            options=encoding_options(config, task, examples),
        )
        splits[name] = Split(examples, encoded)
    return splits


def _check_training(config: FinetuneRunConfig, task: Task, examples: Sequence[Example]) -> None:
    """Makes sure that examples can be trained on.

    Raises:
      UsageError: they have no labels, or only right answers where wrong ones are needed.
    """
    unlabelled = [example.guid for example in examples if example.label is None]
    if unlabelled:
        raise UsageError(f"example {unlabelled[0]} of task {task.name} has no label")
    if not config.task.cloze or not scores_answer_alone(task, examples):
        return
    if config.task.loss not in LOSSES_OF_ANSWER_ALONE:
        raise UsageError(
            f"the training examples of {task.name} have no wrong answers (candidates), which "
            f"task.loss = {config.task.loss!r} needs; "
            f"{' and '.join(LOSSES_OF_ANSWER_ALONE)} need none"
        )
    if config.task.segment_length or config.task.length_penalty:
        raise UsageError(
            f"the training examples of {task.name} have no wrong answers (candidates), so that "
            "task.segment_length and task.length_penalty have no scores to change"
        )


def scores_answer_alone(task: Task, examples: Sequence[Example]) -> bool:
    """Whether the right answer has no others to choose from, and its tokens alone are learnt."""
    return task.answer_alone and not any(e.meta.get("candidates") for e in examples)


def encoding_options(
    config: FinetuneRunConfig, task: Task, examples: Sequence[Example]
) -> dict[str, Any]:
    """How the examples of a split are encoded."""
    return {
        "cloze": config.task.cloze,
        "multi_token": config.task.multi_token,
        "segment_length": config.task.segment_length,
        "negatives": not scores_answer_alone(task, examples),
        "num_prompt_tokens": config.prompt.num_tokens,
        "prefix_prompt": config.prompt.prefix,
    }


def priming_texts(
    config: FinetuneRunConfig, task: Task, split: Split, tokenizer: Tokenizer
) -> PrimingTexts | None:
    """The texts of the pretraining objective, None where the run has no batches of it.

    Raises:
      UsageError: the tokenizer lacks a token of the blanks, a text can't be encoded, or its tokens
        would be smoothed.
    """
    if not config.finetune.block_lm_ratio:
        return None
    if config.task.label_smoothing and scores_answer_alone(task, split.examples):
        raise UsageError(
            "finetune.block_lm_ratio and task.label_smoothing do not go together where answers are "
            "learnt as language models learn, since the texts would be smoothed too"
        )
    return PrimingTexts(
        task,
        split.examples,
        tokenizer,
        config.task.sequence_length,
        config.task.pattern_ids,
        config.task.multi_token,
        config.finetune.block_lm_ratio,
        config.blanks,
        config.finetune.seed,
    )
