"""Batches of a finetuning run without its data, to compile its step for."""

from __future__ import annotations

import numpy as np

from glm_jax.finetune.config import FinetuneRunConfig
from glm_jax.finetune.shared_contexts import share_contexts

# Of a task whose examples differ in them: as many choices as training examples of ReCoRD and WSC
# have at most, and answers as long as their names.
NUM_CHOICES = 10
ANSWER_LENGTH = 8


def placeholder_batch(
    config: FinetuneRunConfig,
    num_choices: int = NUM_CHOICES,
    answer_length: int = ANSWER_LENGTH,
) -> dict[str, np.ndarray]:
    """A batch of full-length rows with the arrays, shapes and dtypes of a run's longest batch.

    Args:
      config: of the run; its data and weights are not read.
      num_choices: C of tasks whose examples have different numbers of choices; others have as many
        as labels.
      answer_length: tokens of every scored answer.
    """
    task, length = config.task.task, config.task.sequence_length
    scores_answers = config.task.cloze and (task.scores_answers or config.task.multi_token)
    # A head scores the choices themselves, but sees a right answer alone like any other text.
    by_head = not config.task.cloze and task.scores_answers and not task.answer_alone
    has_choices = scores_answers or by_head
    choices = num_choices if task.variable_choices or task.answer_alone else len(task.labels)
    size = config.finetune.batch_size
    lead = (size, choices) if has_choices else (size,)
    prefix = length - (answer_length if scores_answers else 1)
    batch = {
        "tokens": np.zeros((*lead, length), np.int32),
        "position_ids": np.zeros((*lead, 2, length), np.int32),
        "prefix_length": np.full(lead, prefix, np.int32),
        "label": np.zeros(size, np.int32),
        "weight": np.ones(size, np.float32),
    }
    if has_choices:
        batch["choice_mask"] = np.ones(lead, np.float32)
    if config.task.cloze:
        targets = (*lead, length) if scores_answers else (size, len(task.labels))
        batch["targets"] = np.zeros(targets, np.int32)
        scored = (np.arange(length) >= prefix).astype(np.float32)
        batch["loss_mask"] = np.tile(scored, (*lead, 1))
    if config.prompt.total:
        batch["prompt_ids"] = np.zeros((*lead, length), np.int32)
    return dict(share_contexts(batch))
