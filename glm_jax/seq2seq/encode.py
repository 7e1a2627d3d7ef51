"""Examples of sequence-to-sequence tasks -> rows."""

from __future__ import annotations

from collections.abc import Sequence

from glm_jax.errors import UsageError
from glm_jax.seq2seq.rows import RowLayout, blanks_row, one_blank_row
from glm_jax.seq2seq.source import Source, SourceEncoder
from glm_jax.seq2seq.task import Seq2SeqTask
from glm_jax.tasks.example import Example
from glm_jax.tasks.sequence import Row
from glm_jax.tokenizer import Tokenizer


def encode_source(
    task: Seq2SeqTask, example: Example, tokenizer: Tokenizer, source_length: int
) -> Source:
    """What the model reads.

    Args:
      task, example, tokenizer: what is encoded.
      source_length: S, in tokens.

    Raises:
      UsageError: no blank fits into the source.
    """
    try:
        return task.source(example, SourceEncoder(tokenizer, source_length))
    except UsageError as error:
        raise UsageError(f"example {example.guid} of task {task.name}: {error}") from error


def encode_pair(
    task: Seq2SeqTask, example: Example, tokenizer: Tokenizer, layout: RowLayout
) -> Row:
    """A row to train on, as `one_blank_row` or `blanks_row` make it.

    Raises:
      UsageError: no blank fits into the source, or the example has no target.
    """
    source = encode_source(task, example, tokenizer, layout.source_length)
    targets = [tokenizer.encode(text) for text in targets_of(task, example)]
    if task.form is not None:
        return task.form.row(layout, source, targets[0])
    if task.several_blanks:
        return blanks_row(layout, source, targets)
    return one_blank_row(layout, source, targets[0])


def targets_of(task: Seq2SeqTask, example: Example) -> Sequence[str]:
    """The text of each blank.

    Raises:
      UsageError: the example has none.
    """
    if example.text_b is None and not example.meta:
        raise UsageError(f"example {example.guid} of task {task.name} has no target")
    return task.target(example)


def split_into_windows(
    task: Seq2SeqTask, examples: list[Example], tokenizer: Tokenizer, source_length: int, split: str
) -> list[Example]:
    """Examples whose long texts are split into windows, each with a guid of its own.

    Training leaves out windows that the task does not learn from.
    """
    if task.windows is None:
        return examples
    encoder = SourceEncoder(tokenizer, source_length)
    found = [window for example in examples for window in task.windows(example, encoder)]
    if split == "train":
        found = [window for window in found if task.in_window(window)]
    return [
        Example(f"{split}-{number}", window.text_a, idx=window.idx, meta=window.meta)
        for number, window in enumerate(found)
    ]


def reference_text(task: Seq2SeqTask, example: Example, tokenizer: Tokenizer) -> str:
    """What outputs are compared with.

    Raises:
      UsageError: the example has no target.
    """
    if task.reference is not None:
        targets_of(task, example)
        return task.reference(example, tokenizer)
    text = "|".join(part.removeprefix(" ") for part in targets_of(task, example))
    return tokenizer.decode(tokenizer.encode(text)) if task.reference_is_decoded else text
