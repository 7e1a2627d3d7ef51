"""A split of a task, read and checked, and the prompts of its examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath

from glm_jax.errors import UsageError
from glm_jax.finetune.subset import draw_subset
from glm_jax.generate.prompt import Prompt
from glm_jax.io.paths import resolve_path
from glm_jax.io.tfds import TFDS_PREFIX
from glm_jax.seq2seq.config import Seq2SeqConfig
from glm_jax.seq2seq.encode import encode_source, split_into_windows, targets_of
from glm_jax.seq2seq.generate import source_prompt
from glm_jax.seq2seq.registry import SEQ2SEQ_TASKS
from glm_jax.seq2seq.task import Seq2SeqTask
from glm_jax.tasks.example import Example
from glm_jax.tokenizer import Tokenizer

SPLITS = ("train", "dev", "test")
# Tokens that every row has, by the original's names.
NEEDED_TOKENS = ("MASK", "ENC", "eos", "sop", "eop", "pad")


def read_split(
    settings: Seq2SeqConfig,
    split: str,
    tokenizer: Tokenizer,
    max_examples: int = 0,
    subset_seed: int = 0,
) -> list[Example]:
    """The examples of a split: windows of long texts, and texts with their blanks drawn.

    Args:
      settings: of the task.
      split: "train", "dev" or "test".
      tokenizer: of the model.
      max_examples: of which the others are left out, before windows are made; 0 for all.
      subset_seed: decides which ones are left.

    Raises:
      UsageError: a file is missing or has a fault, or there are no examples.
    """
    if split not in SPLITS:
        raise UsageError(f"the split is {split!r}; expected one of {', '.join(SPLITS)}")
    task = settings.task
    if settings.data.startswith(TFDS_PREFIX):
        examples = read_stored(task, settings.data, split)
    else:
        examples = read_files(task, resolve_path(settings.data, "seq2seq.data"), split)
    if max_examples:
        examples = draw_subset(None, examples, max_examples, subset_seed)
    if task.draw is not None and split != "test":
        drawn = [
            task.draw(example, np.random.default_rng((settings.seed, number)))
            for number, example in enumerate(examples)
        ]
        # A share of a few words may be none.
        examples = [example for example in drawn if example.meta["targets"]]
    examples = split_into_windows(task, examples, tokenizer, settings.source_length, split)
    if not examples:
        raise UsageError(
            f"the split {split} of task {task.name} has no examples in {settings.data}"
        )
    return examples


def read_files(task: Seq2SeqTask, folder: epath.Path, split: str) -> list[Example]:
    """The examples of a task's files.

    Raises:
      UsageError: a file is missing or has a fault.
    """
    if not folder.is_dir():
        raise UsageError(f"seq2seq.data {folder} is not a folder")
    if not task.has_files(folder, split):
        others = [other.name for other in SEQ2SEQ_TASKS.values() if other.has_files(folder, split)]
        missing = " or ".join(task.files[split])
        raise UsageError(
            f"{folder / missing} is missing, which task {task.name} needs for its split {split}"
            + (f"; published at {task.published_at}" if task.published_at else "")
            + (f"; the folder has files of {', '.join(others)}" if others else "")
        )
    return task.read(folder, split)


def read_stored(task: Seq2SeqTask, source: str, split: str) -> list[Example]:
    """The examples of a prepared TFDS data set, "tfds:NAME[/CONFIG]".

    Raises:
      UsageError: the task is read from files only, the data set is of another one, or as
        `stored_rows`.
    """
    if task.of_rows is None:
        raise UsageError(f"task {task.name} is read from files, and not from {source}")
    # Imported here because TensorFlow is heavy and files don't need it.
    from glm_jax.tasks.tfds import stored_rows

    return task.of_rows(stored_rows(source, task.name, split, task.stored_splits.get(split)), split)


def prompts_of(
    settings: Seq2SeqConfig, examples: Sequence[Example], tokenizer: Tokenizer
) -> Mapping[str, Prompt]:
    """What the decoder reads for each example, by the example's guid.

    Raises:
      UsageError: a blank doesn't fit into a source.
    """
    return {str(example.guid): prompt_of(settings, example, tokenizer) for example in examples}


def prompt_of(settings: Seq2SeqConfig, example: Example, tokenizer: Tokenizer) -> Prompt:
    """What the decoder reads for an example.

    Raises:
      UsageError: a blank doesn't fit into the source.
    """
    task, length = settings.task, settings.source_length
    if task.form is not None:
        example, length = task.form.written_to(example, length)
    source = encode_source(task, example, tokenizer, length)
    if task.form is not None:
        return task.form.prompt(source, tokenizer.special)
    pad = tokenizer.special["pad"]
    return source_prompt(source, pad, length, pad_source=settings.pad_source)


def has_references(task: Seq2SeqTask, examples: Sequence[Example]) -> bool:
    """Whether outputs can be judged.

    Raises:
      UsageError: some examples have a reference, and others have none.
    """
    missing = [example for example in examples if not _has_reference(task, example)]
    if missing and len(missing) < len(examples):
        raise UsageError(
            f"example {missing[0].guid} of task {task.name} has no reference, but others have one; "
            "outputs are judged where all have"
        )
    return not missing


def _has_reference(task: Seq2SeqTask, example: Example) -> bool:
    try:
        return any(text.strip() for text in targets_of(task, example))
    except UsageError:
        return False


def check_tokenizer(tokenizer: Tokenizer) -> None:
    """Makes sure that rows can be built.

    Raises:
      UsageError: a token of theirs is missing.
    """
    for name in NEEDED_TOKENS:
        if name not in tokenizer.special:
            raise UsageError(f"the tokenizer has no token {name}, which the task needs")


def check_lengths(settings: Seq2SeqConfig, num_positions: int) -> None:
    """Makes sure that sources and outputs together have positions.

    Raises:
      UsageError: the network has fewer.
    """
    total = settings.source_length + settings.target_length
    if total > num_positions:
        raise UsageError(
            f"seq2seq.source_length {settings.source_length} and seq2seq.target_length "
            f"{settings.target_length} make {total} positions, but the network has only "
            f"{num_positions}"
        )
