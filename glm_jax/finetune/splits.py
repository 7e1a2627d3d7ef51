"""The splits of a task, read and encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from glm_jax.errors import UsageError
from glm_jax.finetune.batches import EncodedExamples
from glm_jax.finetune.config import FinetuneRunConfig
from glm_jax.finetune.encoded import encode_examples
from glm_jax.tasks import Example, Task, has_split, read_examples
from glm_jax.tokenizer import Tokenizer


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
            _check_training(task, examples, config.task.cloze)
            examples = examples[: config.finetune.max_train_examples or None]
        encoded = encode_examples(
            task,
            examples,
            tokenizer,
            sequence_length=config.task.sequence_length,
            options=encoding_options(config),
        )
        splits[name] = Split(examples, encoded)
    return splits


def _check_training(task: Task, examples: Sequence[Example], cloze: bool) -> None:
    """Makes sure that examples can be trained on.

    Raises:
      UsageError: they have no labels, or only right answers where wrong ones are needed.
    """
    unlabelled = [example.guid for example in examples if example.label is None]
    if unlabelled:
        raise UsageError(f"example {unlabelled[0]} of task {task.name} has no label")
    if task.answer_alone and cloze and not any(e.meta.get("candidates") for e in examples):
        raise UsageError(
            f"the training examples of {task.name} have no wrong answers (candidates), which "
            "finetuning by cloze needs; task.cloze = False needs none"
        )


def encoding_options(config: FinetuneRunConfig) -> dict[str, Any]:
    """How examples are encoded."""
    return {
        "pattern": config.task.pattern,
        "cloze": config.task.cloze,
        "multi_token": config.task.multi_token,
        "negatives": True,
        "num_prompt_tokens": config.prompt.num_tokens,
        "prefix_prompt": config.prompt.prefix,
    }


def longest_answer(encoded: EncodedExamples) -> int:
    """Most positions from the start of Part B to the last scored one; 0 for verbalizers."""
    if encoded.arrays["tokens"].ndim == 2 and encoded.arrays["targets"].shape[-1] != (
        encoded.sequence_length
    ):
        return 0
    mask = encoded.arrays["loss_mask"]
    # Multiple choice from left to right scores the last tokens of Part B only.
    ends = mask.shape[-1] - np.argmax(mask[..., ::-1], axis=-1)
    return int((ends - encoded.arrays["prefix_length"]).max())
