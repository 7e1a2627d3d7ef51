"""Settings of a task that make no sense together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glm_jax.errors import UsageError
from glm_jax.finetune.losses import OF_LOG_PROBABILITIES, SMOOTHED

if TYPE_CHECKING:
    from glm_jax.finetune.config import TaskConfig


def check_scoring(config: TaskConfig) -> None:
    """Makes sure that what answers are scored by fits how the task is asked.

    Raises:
      UsageError: it does not.
    """
    if config.ensemble and not config.cloze:
        raise UsageError(
            f"task.ensemble is {config.ensemble}, but task.cloze is False: a head classifies "
            "without patterns"
        )
    if not config.scores_answers:
        for name in ("segment_length", "length_penalty"):
            if getattr(config, name):
                raise UsageError(
                    f"task.{name} is {getattr(config, name)}, but no answers are scored; "
                    "task.multi_token = True scores the tokens of words"
                )
    _check_loss(config)


def _check_loss(config: TaskConfig) -> None:
    """Raises UsageError if the loss has no bound, or label smoothing nothing to change."""
    # AdaPET's scores of words are log-probabilities over the vocabulary.
    normalized = config.scores_answers or (config.cloze and config.loss == "adapet")
    if config.loss in OF_LOG_PROBABILITIES and not normalized:
        raise UsageError(
            f"task.loss is {config.loss!r}, which needs log-probabilities, but "
            f"{'words are compared by their logits' if config.cloze else 'a head has none'}"
            f"{'; task.multi_token = True scores the tokens of words' if config.cloze else ''}"
        )
    # The answer alone is learnt by the cross entropy of its tokens.
    smoothed = (*SMOOTHED, "generative") if config.task.answer_alone else SMOOTHED
    if config.label_smoothing and config.loss not in smoothed:
        raise UsageError(
            f"task.label_smoothing is {config.label_smoothing}, which task.loss = "
            f"{config.loss!r} has no place for; it is of {' and '.join(SMOOTHED)}"
        )
