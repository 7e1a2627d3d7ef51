"""The summary that a pretraining run prints at its end."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from etils import epath
from rich.console import Console
from rich.text import Text

from glm_jax.cli.example_blanks import guesses, held_out_blanks, shown_share, surest
from glm_jax.convert.load import load_glm
from glm_jax.data.store.store import open_store
from glm_jax.generate.fill import Filler
from glm_jax.io.paths import resolve_path
from glm_jax.tokenizer import load_tokenizer
from glm_jax.train.config import RunConfig
from glm_jax.train.evaluate import distance
from glm_jax.train.metrics import read_metrics
from glm_jax.train.pretrain import Outcome

# Held-out sentences that examples are chosen from.
NUM_SENTENCES = 60


def show_ending(config: RunConfig, outcome: Outcome, console: Console, *, examples: bool) -> None:
    """Prints the result, filled blanks of a finished run, and the paths of its files."""
    folder = resolve_path(config.train.run_folder, "train.run_folder")

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    trained = outcome.steps > outcome.steps_before
    if not outcome.finished:
        say(f"stopped after step {outcome.steps} of {config.train.num_steps}, and saved")
    elif not trained:
        say(f"this run is done: all {outcome.steps} steps of {config.train.run_folder}")
    validation = [r for r in read_metrics(folder / "metrics.jsonl") if r["kind"] == "validation"]
    if validation:
        last = validation[-1]
        say(
            f"validation loss {last['loss']:.3f} nats per target at step {last['step']}, "
            f"{distance(last['loss'], last['unigram_entropy'])} the unigram entropy "
            f"{last['unigram_entropy']:.3f} of the same targets"
        )
    if outcome.finished and trained and examples and config.evaluation.fill_examples:
        _show_guesses(folder, config, console)
    shown = config.train.run_folder.rstrip("/")  # as it was given, not as an absolute path
    say(f"run folder  {shown}")
    say(f"loss plot   {shown}/loss.png")
    num_steps = 2 * outcome.steps if outcome.finished else config.train.num_steps
    say(f"continue    {continue_command(shown, num_steps)}")


def continue_command(run_folder: str, num_steps: int) -> str:
    """The shell command that resumes the run up to `num_steps`."""
    program = sys.argv[0] if Path(sys.argv[0]).name == "glm-jax" else "glm-jax"
    gin_file = f"--gin_file={run_folder}/config.gin"
    return shlex.join([program, "pretrain", gin_file, f"--gin.train.num_steps={num_steps}"])


def _show_guesses(folder: epath.Path, config: RunConfig, console: Console) -> None:
    """Held-out sentences up to a word that the newest checkpoint is sure of, and how it guesses."""
    tokenizer = load_tokenizer(str(folder))
    model, params = load_glm(folder)
    validation = open_store(config.data.main_store).split("validation")
    max_tokens = model.config.max_sequence_length - 2  # ENC and eos surround a text
    blanks = held_out_blanks(validation, tokenizer, NUM_SENTENCES, max_tokens)
    if not blanks:
        return
    made = guesses(Filler(model, params, tokenizer), blanks)
    console.print(
        "held-out sentences up to a word that the model just trained is sure of: the most probable "
        "next tokens, and the truth",
        style="bold",
        soft_wrap=True,
    )
    for guess in surest(made, config.evaluation.fill_examples):
        console.print(Text(f"  {guess.before} ____ {guess.after}"), soft_wrap=True)
        shown = ", ".join(f'"{token.text}" {shown_share(token.share)}' for token in guess.answers)
        truth = f'"{guess.truth.text}" {shown_share(guess.truth.share)}'
        line = Text.assemble("    model: ", (shown, "bold green"), "    truth: ", truth)
        console.print(line, soft_wrap=True)
    right = sum(guess.is_right for guess in made)
    console.print(
        f"  (the surest of {len(made)} guesses, each answer once; "
        f"{shown_share(right / len(made))} of all are right)",
        highlight=False,
        soft_wrap=True,
    )
