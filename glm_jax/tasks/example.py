"""One labelled example of a task, as every task's reader makes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from glm_jax.errors import UsageError

Label = str | int


@dataclass(frozen=True)
class Example:
    """An example before it is encoded (source: reference-finetune.md, section 1).

    Attributes:
      guid: names the example; a row that became several examples gives them one guid.
      text_a: the first text.
      text_b: the second text, None where the task has one only. CLUEWSC keeps the index of its
        first span here, as the original does.
      label: one of the task's labels, None where the split has no labels.
      idx: what the row's prediction is filed under, -1 where the task's files have no index.
      num_choices: answers to choose from, where their number varies.
      meta: what else the task's patterns and metrics need.
    """

    guid: str | int
    text_a: str
    text_b: str | int | None = None
    label: Label | None = None
    idx: Any = -1
    num_choices: int = 1
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def second(self) -> str:
        """`text_b` of a task whose examples have one."""
        if not isinstance(self.text_b, str):
            raise TypeError(f"example {self.guid} has no second text")
        return self.text_b


@contextmanager
def naming_example(task: str, example: Example) -> Iterator[None]:
    """Puts the example, and its task's name, into the message of a `UsageError`."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"example {example.guid} of task {task}: {error}") from error
