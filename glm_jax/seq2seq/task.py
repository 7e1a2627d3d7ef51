"""What a sequence-to-sequence task is: its examples, its sources, and how outputs are judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from etils import epath

from glm_jax.generate.prompt import Prompt
from glm_jax.seq2seq.files import Reader, joined_lines
from glm_jax.seq2seq.fix_tokenization import unchanged
from glm_jax.seq2seq.rows import RowLayout
from glm_jax.seq2seq.source import Source, SourceEncoder
from glm_jax.tasks.example import Example
from glm_jax.tasks.files import Fields
from glm_jax.tasks.sequence import Row
from glm_jax.tokenizer import Tokenizer

# The input of tasks that write for one text, and the guid of what a user gives.
TEXT = "text"
GIVEN = "given"


def text_b(example: Example) -> tuple[str, ...]:
    """The target of tasks that have it as their second text."""
    return (f" {example.second}",)


def text_alone(inputs: Mapping[str, str]) -> Example:
    """The example of tasks that write for one text, whose lines are joined by spaces."""
    return Example(GIVEN, joined_lines(inputs[TEXT]))


class Form(Protocol):
    """How rows and prompts are laid out, where not as the original GLM lays them out."""

    def row(self, layout: RowLayout, source: Source, target: Sequence[int]) -> Row:
        """A row to train on, with the arrays of `one_blank_row`."""
        ...

    def prompt(self, source: Source, special: Mapping[str, int]) -> Prompt:
        """What an output is written to."""
        ...

    def written_to(self, example: Example, source_length: int) -> tuple[Example, int]:
        """The example and the source length as they are where outputs are written."""
        ...


@dataclass(frozen=True)
class Seq2SeqTask:
    """A task; `glm_jax.seq2seq.SEQ2SEQ_TASKS` has them by name.

    Attributes:
      name: in configurations and on the command line.
      read: (folder, split) -> examples; the splits are train, dev and test.
      source: (example, encoder) -> what the model reads.
      published_at: where the files can be had; "" where they are the user's own.
      files: by split, the names of files any of which shows that the split is there.
      target: example -> the text of each blank.
      metrics: names of the reported metrics; the first one chooses the best checkpoint.
      windows: (example, encoder) -> the examples that one with a long text is split into.
      in_window: whether an example that `windows` made is trained on.
      several_blanks: whether all masks of a source are filled, rather than its first one.
      draw: (example, generator) -> the example with random blanks, for training, where every epoch
        has others.
      reference_is_decoded: whether outputs are compared with targets that are encoded and decoded,
        so that both have the vocabulary's form; else with the texts themselves.
      of_rows: (rows of a TFDS data set, split) -> examples; None for tasks of files only.
      stored_splits: names of splits in TFDS data sets, where they are not the usual ones.
      inputs: names of the texts that a user gives for an output.
      asked: these texts -> the example, without a target.
      form: of rows and prompts; None for that of the original GLM.
      reference: (example, tokenizer) -> what outputs are compared with; None for the targets.
      rouge_fix: changes outputs and references of lower-case vocabularies before ROUGE.
    """

    name: str
    read: Reader
    source: Callable[[Example, SourceEncoder], Source]
    published_at: str
    files: Mapping[str, Sequence[str]]
    target: Callable[[Example], Sequence[str]] = text_b
    metrics: Sequence[str] = ("rouge-1", "rouge-l", "rouge-2")
    windows: Callable[[Example, SourceEncoder], list[Example]] | None = None
    in_window: Callable[[Example], bool] = lambda example: True
    several_blanks: bool = False
    draw: Callable[[Example, np.random.Generator], Example] | None = None
    reference_is_decoded: bool = True
    of_rows: Callable[[Sequence[Fields], str], list[Example]] | None = None
    stored_splits: Mapping[str, Sequence[str]] = field(default_factory=dict)
    inputs: Sequence[str] = (TEXT,)
    asked: Callable[[Mapping[str, str]], Example] = text_alone
    form: Form | None = None
    reference: Callable[[Example, Tokenizer], str] | None = None
    rouge_fix: Callable[[str], str] = unchanged

    def has_files(self, folder: epath.Path, split: str) -> bool:
        """Whether a folder has the files of a split."""
        return any((folder / name).is_file() for name in self.files.get(split, ()))
