"""Finetune a GLM on a task, or resume such a run.

    glm-jax finetune --gin_file=configs/finetune/rte_large.gin \\
        --gin.finetune.initial_weights=CHECKPOINT --gin.task.data=FOLDER

Flags as those of `glm-jax pretrain`.
"""

from __future__ import annotations

import argparse

from glm_jax import environment
from glm_jax.cli import pretrain

HELP = "finetune a GLM on a task: SuperGLUE, GLUE, CLUE, summaries, questions, or your own"
TAKES_GIN = True

add_arguments = pretrain.add_arguments


def run(arguments: argparse.Namespace) -> int:
    """Reads the configuration, finetunes, and prints the results."""
    from rich.console import Console

    from glm_jax.configure import read_finetuning
    from glm_jax.seq2seq.config import Seq2SeqRunConfig
    from glm_jax.train.profile import parse_profile_steps

    config = read_finetuning(arguments.gin_file, arguments.bindings)
    window = arguments.profile_steps and parse_profile_steps(arguments.profile_steps)
    with pretrain.join(arguments):
        import jax

        from glm_jax.finetune.results import result_lines
        from glm_jax.finetune.run import finetune, finetune_task
        from glm_jax.seq2seq.prepare import prepare_seq2seq

        environment.keep_memory_between_steps()
        environment.keep_compiled_programs()
        console = Console(quiet=jax.process_index() != 0)

        def say(line: str) -> None:
            console.print(line, highlight=False, markup=False, soft_wrap=True)

        if isinstance(config, Seq2SeqRunConfig):
            outcome = finetune_task(config, prepare_seq2seq, console, window or None)
        else:
            outcome = finetune(config, console, window or None)
        if outcome.results is None:
            seed = "" if outcome.seed is None else f" of seed {outcome.seed}"
            say(f"stopped after step {outcome.steps} of {outcome.num_steps}{seed}, and saved")
        else:
            for result in result_lines(outcome.results):
                say(result)
        say(f"run folder  {config.finetune.run_folder}")
    return 0
