"""The task of a finetuning run, how it is asked, and how answers are scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from glm_jax import validation
from glm_jax.errors import UsageError
from glm_jax.finetune.combinations import check_scoring
from glm_jax.finetune.heads import POOLS
from glm_jax.finetune.losses import LOSSES
from glm_jax.tasks import Task, find_task
from glm_jax.tasks.custom import custom_task
from glm_jax.tasks.few_shot import few_shot_task


@dataclass(frozen=True)
class TaskConfig:
    """The task, how it is asked, and how answers are scored.

    Attributes:
      name: a task of `glm_jax.tasks`, "custom", or a Python file with a task of your own, such as
        "my_task.py" (see `find_task`).
      data: the folder with its files, or a prepared TFDS data set, such as "tfds:super_glue/copa".
      sequence_length: L.
      pattern: id of the pattern.
      ensemble: ids of several patterns in place of `pattern`: training goes through all examples by
        each of them, and evaluation averages over them.
      few_shot: the data are FewSuperGLUE's: dev32.jsonl is the dev split, and val.jsonl the test.
      cloze: whether blanks are filled; else a head classifies.
      multi_token: scores all tokens of verbalizers.
      segment_length: tokens of an answer that are scored at a time, those before them being in the
        context; 0 for all.
      length_penalty: scores of answers are divided by their length to this power.
      loss: "cross_entropy", "hinge", "generative", "mix" or "adapet".
      label_smoothing: weight of the loss that is spread evenly over the choices.
      pool: what a head sees: "cls", "pad" or "start".
      patterns: of a custom task, such as "{text} It was [MASK].".
      words: of a custom task: the word that fills the blank, for each label.
      label: of a custom task: the field with the label.
    """

    name: str
    data: str
    sequence_length: int = 256
    pattern: int = 0
    ensemble: tuple[int, ...] = ()
    few_shot: bool = False
    cloze: bool = True
    multi_token: bool = False
    segment_length: int = 0
    length_penalty: float = 0.0
    loss: str = "cross_entropy"
    label_smoothing: float = 0.0
    pool: str = "cls"
    patterns: tuple[str, ...] = ()
    words: Mapping[str, str] = field(default_factory=dict)
    label: str = "label"

    def __post_init__(self) -> None:
        validation.at_least("task", self, 8, "sequence_length")
        validation.at_least("task", self, 0, "pattern", "segment_length")
        validation.non_negative("task", self, "length_penalty")
        validation.choice("task", self, "loss", LOSSES)
        validation.choice("task", self, "pool", POOLS)
        validation.fraction("task", self, "label_smoothing", one=False)
        task = self.task
        if (self.patterns or self.words) and self.name != "custom":
            raise UsageError(
                f"task.patterns and task.words describe a custom task, but task.name is "
                f"{self.name!r}"
            )
        if not task.metrics:
            raise UsageError(
                f"task {self.name} has one answer to each question, so that nothing is chosen; it "
                "is for pretraining, in data.tasks"
            )
        if not self.cloze and task.encode is not None:
            raise UsageError(f"task {self.name} has no inputs of a head; leave task.cloze True")
        if self.cloze and task.pattern is None:
            raise UsageError(f"task {self.name} has no patterns; set task.cloze = False")
        for name, ids in (("pattern", (self.pattern,)), ("ensemble", self.ensemble)):
            for pattern in ids if self.cloze else ():
                if not 0 <= pattern < task.num_patterns:
                    raise UsageError(
                        f"task.{name} is {getattr(self, name)}; task {self.name} has 0 to "
                        f"{task.num_patterns - 1}"
                    )
        check_scoring(self)

    @property
    def task(self) -> Task:
        """The task itself."""
        if self.name == "custom":
            task = custom_task(self.patterns, self.words, label=self.label)
        else:
            task = find_task(self.name)
        return few_shot_task(task) if self.few_shot else task

    @property
    def pattern_ids(self) -> tuple[int, ...]:
        """Ids of the patterns that every example is asked by."""
        return self.ensemble or (self.pattern,)

    @property
    def scores_answers(self) -> bool:
        """Whether the tokens of answers are scored."""
        return self.cloze and (self.multi_token or self.task.scores_answers)
