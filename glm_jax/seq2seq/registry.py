"""All sequence-to-sequence tasks by name."""

from __future__ import annotations

from collections.abc import Mapping

from glm_jax.seq2seq.catalog import answers, blanks, questions, summaries
from glm_jax.seq2seq.task import Seq2SeqTask

_MODULES = (summaries, questions, blanks, answers)
SEQ2SEQ_TASKS: Mapping[str, Seq2SeqTask] = {
    task.name: task for module in _MODULES for task in module.TASKS
}
