"""Writes docs/results.md: the published results, and how each row of GLM is run here.

    python -m glm_jax.results.page

Commands, settings, slices and times are read from configs/ and from the reports in docs/tpu/, so
that the page follows them; `tests/results/test_page.py` fails when it is not up to date.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from glm_jax.errors import RunError, UsageError
from glm_jax.results.published import (
    CNN_DM,
    LANGUAGE_MODELS,
    SUPERGLUE,
    SUPERGLUE_TASKS,
    XSUM,
    PublishedTable,
)
from glm_jax.results.runs import FinetuningRun, finetuning_run, language_model_command

HEADER = """# Published results, and how to get them

The tables of the authors of GLM, with the systems that they name, and for each row of GLM the
command, the configuration, the smallest TPU slice that its training step is known to fit, and the
time predicted from the compiled step. **No score on this page was measured with this code**: the
released weights and the data sets are not part of the repository, and no TPU was used. What has
been checked is listed under each table.

- *Recipe* is epochs x batch, learning rate, length of a row.
- *Slice* and *time* are those of the reports in [tpu.md](tpu.md): the step compiled by the TPU
  compiler, ahead of time and without the hardware. The first time overlaps all transfers with
  computing, the second none. A report counts for every task whose step has the same network, batch
  and weights to train: that of RTE for WiC and BoolQ too. "no report" means that no step of this
  configuration was compiled: what it needs is not known. `glm-jax compile --gin_file=FILE
  --topology=v5p:2x2x1` compiles one.
- Checkpoints (`finetune.initial_weights`), data (`task.data`, `seq2seq.data`) and vocabularies are
  where the configuration says, unless a flag such as `--gin.task.data=FOLDER` names another folder.

This page is generated: `make results-page`.
"""
MODELS = {"GLM-10B": "10b", "GLM-RoBERTa": "roberta", "GLM-Large": "large"}
OTHER_MODELS = """
GLM-Base, GLM-Doc, GLM-410M and GLM-515M are finetuned with the recipes of GLM-Large, whose
vocabulary they have: `--gin.finetune.initial_weights=CHECKPOINT --gin.finetune.published=GLM-Doc`.
There are no reports of their steps.
"""
SUPERGLUE_CHECKED = """
Checked here: examples, patterns, answers and metrics of all eight tasks equal those that the
original code recorded ([parity.md](parity.md)); the loss, gradients and steps of optimizers
likewise; small networks learn synthetic tasks, with equal results on one device, eight devices and
two processes. Not checked: any score of this table, runs from released weights, times on hardware.
"""
SUMMARIES_CHECKED = """
After training, `glm-jax evaluate RUN_FOLDER --task=TASK --split=test` writes the summaries and
reports ROUGE. The authors' figures are ROUGE-1.5.5 (files2rouge) of texts tokenized by Stanford
CoreNLP, this code's those of `rouge-score`: they may differ slightly for the same texts.

Checked here: sources, targets, masks, the loss and the text functions equal what the original code
recorded; every recorded step of its beam search has the same beams, ends and scores; ROUGE equals
the reference package's; an overfitted small network writes its training summaries; outputs are the
same on one device, eight devices, two processes, and after kills. Not checked: any score of these
tables, runs from released weights, times and memory on hardware.
"""
LANGUAGE_MODELS_CHECKED = """
Nothing is trained. `checkpoints/glm_10b` are the released weights
([models.md](models.md#using-a-downloaded-checkpoint)). There is no compiled report of the step that
scores, so neither the smallest slice nor a time is known.

Checked here: rows, windows and detokenizers equal what the original code recorded; sums over
windows and LAMBADA's words equal single forward passes within 1e-5. Not checked: any figure of this
table, and the released weights.
"""
RUN_COLUMNS = ("row", "task", "command", "configuration", "recipe", "slice", "time")


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the page; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m glm_jax.results.page")
    parser.add_argument("--root", type=Path, default=Path(), help="folder of the repository")
    parsed = parser.parse_args(arguments)
    out = parsed.root / "docs/results.md"
    try:
        out.write_text(render(parsed.root))
    except (UsageError, RunError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    print(f"wrote {out}")
    return 0


def render(root: Path) -> str:
    """The page as Markdown.

    Args:
      root: folder of the repository.

    Raises:
      UsageError: a recipe is missing or faulty.
    """
    superglue = [
        (system, finetuning_run(root, task, model))
        for system, model in MODELS.items()
        for task in SUPERGLUE_TASKS
    ]
    parts = [
        HEADER,
        *table_lines(SUPERGLUE),
        *run_lines(superglue),
        OTHER_MODELS,
        SUPERGLUE_CHECKED,
        *table_lines(CNN_DM),
        *table_lines(XSUM),
        "\n## Running the summaries",
        *run_lines(
            (system, finetuning_run(root, task, model))
            for task in ("cnn_dm_original", "xsum")
            for system, model in MODELS.items()
        ),
        SUMMARIES_CHECKED,
        *table_lines(LANGUAGE_MODELS),
        *language_model_lines(root),
        LANGUAGE_MODELS_CHECKED,
    ]
    return "\n".join(part.rstrip("\n") for part in parts) + "\n"


def table_lines(table: PublishedTable) -> list[str]:
    """A published table, with its sources."""
    lines = ["", f"## {table.title}", "", f"{table.setting[0].upper()}{table.setting[1:]}.", ""]
    lines += rows_of(("system", *table.columns), ((n, *row) for n, row in table.rows.items()))
    lines += ["", f"Sources: {table.sources}."]
    if table.left_out:
        lines.append(f"Left out, because no copy of them could be checked: {table.left_out}.")
    return lines


def run_lines(runs: Iterable[tuple[str, FinetuningRun]]) -> list[str]:
    """A table of runs, a row for each system and task."""
    rows = (
        (
            system,
            run.task,
            f"`{run.command}`",
            f"[{run.path.name}](../{run.path})",
            run.recipe,
            run.slice,
            run.time,
        )
        for system, run in runs
    )
    return ["", *rows_of(RUN_COLUMNS, rows)]


def language_model_lines(root: Path) -> list[str]:
    """The commands of the language models' rows."""
    tokenizer = finetuning_run(root, "xsum", "10b").config.tokenizer
    directions = {
        "GLM-10B, bidirectional": (),
        "GLM-10B, unidirectional": ("language_model.unidirectional=True",),
    }
    lines = ["\n```"]
    for system, settings in directions.items():
        lines += [f"# {system}"]
        lines.append(language_model_command("lambada", 512, tokenizer, *settings))
        windows = (*settings, "language_model.stride=256")
        lines.append(language_model_command("wikitext", 1024, tokenizer, *windows))
    return [*lines, "```"]


def rows_of(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown."""
    return [_line(columns), _line("---" for _ in columns), *map(_line, rows)]


def _line(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"


if __name__ == "__main__":
    sys.exit(main())
