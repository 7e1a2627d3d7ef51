"""A finetuned checkpoint, opened for what its run says that it was trained for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from etils import epath

    from glm_jax.generate.fill import Filler
    from glm_jax.tokenizer import Tokenizer


def finetuned_filler(
    run: epath.Path, checkpoint: epath.Path, tokenizer: Tokenizer
) -> Filler | None:
    """The filler of a finetuning run; None for runs of other kinds.

    Args:
      run: its folder.
      checkpoint: the folder, of which the best checkpoint is opened, or one of its checkpoints.
      tokenizer: of the model.

    Raises:
      UsageError: the run has several seeds, or something does not fit.
    """
    from glm_jax.finetune.recorded import best_checkpoint, recorded_task

    writes, chooses = recorded_task(run, "seq2seq"), recorded_task(run, "task")
    if writes is None and chooses is None:
        return None
    from glm_jax.configure import read_configuration
    from glm_jax.convert.load import load_glm
    from glm_jax.finetune.filler import ChoiceFiller
    from glm_jax.seq2seq.config import Seq2SeqRunConfig
    from glm_jax.seq2seq.filler import TaskFiller

    model, params = load_glm(best_checkpoint(checkpoint))
    if writes is None:
        assert chooses is not None
        return ChoiceFiller(model, params, tokenizer, os.fspath(run), chooses)
    config = read_configuration([run / "config.gin"], [], Seq2SeqRunConfig)
    return TaskFiller(model, params, tokenizer, config.seq2seq, config.generation)
