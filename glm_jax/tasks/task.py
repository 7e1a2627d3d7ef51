"""What a task is: where its examples come from, how it is asked, and how answers are judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from glm_jax.errors import UsageError
from glm_jax.tasks.example import Example, Label
from glm_jax.tasks.files import Row, json_lines
from glm_jax.tasks.patterns import Pattern

# Files of a task without a format of its own.
OWN_FILES = {split: (f"{split}.jsonl",) for split in ("train", "dev", "test")}


@dataclass(frozen=True)
class Segments:
    """The input of classification without a cloze: one text, or two with a separator between.

    Attributes:
      first: the first text.
      second: the second text; None for no separator.
      appended: text whose tokens directly follow the second's.
    """

    first: str
    second: str | None = None
    appended: str = ""


def two_texts(example: Example) -> Segments:
    """The segments of a task that classifies its two texts, or its only one."""
    second = example.text_b
    return Segments(example.text_a, second if isinstance(second, str) else None)


@dataclass(frozen=True)
class Task:
    """A task; `glm_jax.tasks.registry.TASKS` has them by name.

    Attributes:
      name: in configurations and on the command line.
      labels: in the order of the scores; none where a label is the index of an answer.
      examples: (rows of a split, split) -> examples. Most guids start with the split.
      files: names of the files of each split, relative to the task's folder.
      rows: reads one file.
      texts: fields of a row that have to be texts, such as "passage.questions.question".
      any_files: the data are what a path, folder or pattern names, whatever the files' names.
      other_examples: the same for another purpose, "classification" or "loss", where it differs.
      pattern: (example, pattern id) -> the cloze question, one per scored answer for tasks
        that score answers.
      num_patterns: ids from 0 that `pattern` knows.
      verbalizers: pattern id -> the word of each label; None where answers are scored.
      segments: example -> the input of classification, or a list of one per choice.
      metrics: names of the reported metrics; the first one chooses the best checkpoint. None where
        a question has one answer only, which pretraining learns and nothing chooses.
      group: example -> group whose metrics are reported too, where there are several.
      published_at: where the files can be had; "" where they are the user's own.
      ensemble: ids from 0 that a pattern ensemble uses; 0 for all.
      has_slots: whether patterns have slots for continuous prompts.
      prompt_patterns: patterns that are others where there are continuous prompts.
      variable_choices: whether the number of scored answers varies.
      choose: example -> index of the right answer among those scored, where that is not the
        label's.
      label_of_choice: index of the right one among the scored answers -> index of the label; None
        where they are the same.
      prediction: (example, index of the prediction) -> what a submission has as its label; None for
        the label's name.
      sorted_predictions: whether predictions are in the order of the indices.
      submission: name of the file that the benchmark takes; "" where it takes none.
      answer_alone: whether a right answer without wrong ones is trained as language models are.
      encode: (example, tokenizer, L, whether there are block positions) -> row, where that is not
        made from patterns.
    """

    name: str
    labels: tuple[Label, ...]
    examples: Callable[..., list[Example]]
    files: Mapping[str, Sequence[str]] = field(default_factory=lambda: OWN_FILES)
    rows: Callable[[Any], list[Row]] = json_lines
    texts: Sequence[str] = ()
    any_files: bool = False
    published_at: str = ""
    pattern: Callable[[Example, int], Sequence[Pattern]] | None = None
    num_patterns: int = 0
    verbalizers: Callable[[int], Mapping[Label, str]] | None = None
    segments: Callable[[Example], Segments | list[Segments]] = two_texts
    metrics: Sequence[str] = ("accuracy",)
    group: Callable[[Example], str] | None = None
    ensemble: int = 0
    has_slots: bool = False
    prompt_patterns: Mapping[int, Callable[[Example], Sequence[Pattern]]] = field(
        default_factory=dict
    )
    variable_choices: bool = False
    choose: Callable[[Example], int] | None = None
    answer_alone: bool = False
    label_of_choice: Callable[[int], int] | None = None
    prediction: Callable[[Example, int], Any] | None = None
    sorted_predictions: bool = False
    submission: str = ""
    other_examples: Mapping[str, Callable[..., list[Example]]] = field(default_factory=dict)
    encode: Callable[..., Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        """Raises UsageError where a label is there twice, or has no verbalizer."""
        for label in self.labels:
            if self.labels.count(label) > 1:
                raise UsageError(f"task {self.name} has the label {label!r} twice")
        for pattern in range(self.num_patterns if self.verbalizers else 0):
            words = self.verbalizers(pattern) if self.verbalizers else {}
            missing = [label for label in self.labels if label not in words]
            if missing:
                raise UsageError(
                    f"pattern {pattern} of task {self.name} has no verbalizer for the label "
                    f"{missing[0]!r}"
                )

    @property
    def scores_answers(self) -> bool:
        """Whether the tokens of answers are scored, rather than verbalizers at one position."""
        return self.verbalizers is None

    def label_index(self, example: Example) -> int:
        """Index of the example's label, 0 where it has none.

        Raises:
          UsageError: the label is not one of the task's.
        """
        if example.label is None:
            return 0
        if not self.labels:
            return int(example.label)
        if example.label not in self.labels:
            raise UsageError(
                f"example {example.guid} of {self.name} has the label {example.label!r}; "
                f"expected one of {', '.join(map(repr, self.labels))}"
            )
        return self.labels.index(example.label)

    def questions(
        self, example: Example, pattern: int, *, with_prompts: bool = False
    ) -> Sequence[Pattern]:
        """The cloze questions of one example.

        Args:
          example: to ask about.
          pattern: its id.
          with_prompts: whether slots are filled with continuous prompts.

        Raises:
          UsageError: there is no such pattern.
        """
        if self.pattern is None:
            raise UsageError(f"task {self.name} has no patterns; it is for classification")
        if not 0 <= pattern < self.num_patterns:
            raise UsageError(
                f"task {self.name} has no pattern {pattern}; expected 0 to {self.num_patterns - 1}"
            )
        if with_prompts and pattern in self.prompt_patterns:
            return self.prompt_patterns[pattern](example)
        return self.pattern(example, pattern)
