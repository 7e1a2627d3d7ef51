"""When a finetuning run evaluates, saves and ends."""

from __future__ import annotations

from glm_jax.finetune.batches import TrainingBatches
from glm_jax.finetune.config import FinetuneBaseConfig
from glm_jax.finetune.history import History
from glm_jax.finetune.prepare import PreparedFinetuning
from glm_jax.train.loop import LoopConfig


def batches_of(config: FinetuneBaseConfig, ready: PreparedFinetuning) -> TrainingBatches:
    """What decides the batch of every step."""
    return TrainingBatches(
        ready.splits["train"].encoded,
        config.finetune.batch_size,
        config.finetune.seed,
        window=config.finetune.length_window,
        priming=ready.priming,
    )


def loop_config(config: FinetuneBaseConfig, ready: PreparedFinetuning) -> LoopConfig:
    """When things happen: what is evaluated is saved, in addition to the regular checkpoints."""
    every = config.finetune.evaluate_every_epochs * ready.steps_per_epoch
    return LoopConfig(
        num_steps=ready.num_steps,
        log_every=config.finetune.log_every,
        evaluate_every=every,
        save_every=config.checkpoint.every,
        save_evaluated=True,
    )


def is_evaluation_due(
    config: FinetuneBaseConfig, ready: PreparedFinetuning, history: History, step: int
) -> bool:
    """Whether the checkpoint of a step is to be evaluated and has not been.

    A run may be stopped between a save and the evaluation that follows it.
    """
    every = config.finetune.evaluate_every_epochs * ready.steps_per_epoch
    due = "dev" in ready.splits and step > 0 and (step % every == 0 or step == ready.num_steps)
    return due and not history.has(step)


def is_complete(
    config: FinetuneBaseConfig, ready: PreparedFinetuning, history: History, step: int
) -> bool:
    """Whether a run is at its end: all steps are done and evaluated, or it no longer improves."""
    if is_patience_over(config, history):
        return True
    return step >= ready.num_steps and not is_evaluation_due(config, ready, history, step)


def is_patience_over(config: FinetuneBaseConfig, history: History) -> bool:
    """Whether too many evaluations were not better than an earlier one."""
    return 0 < config.finetune.patience <= history.since_best()
