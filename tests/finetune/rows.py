"""Small tasks and their rows, for tests of batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from glm_jax.finetune.encoded import EncodedExamples, encode_examples
from glm_jax.tasks import Example, Task
from glm_jax.tasks.custom import custom_task
from tests.serve.tiny_checkpoint import byte_tokenizer

LABELS = ("bad", "good")


def letters_task(*patterns: str) -> Task:
    """A task whose words are single bytes."""
    return custom_task(patterns or ("{text} is[MASK].",), {"bad": "n", "good": "y"})


def letters(lengths: Sequence[int]) -> list[Example]:
    """Examples whose texts have these numbers of bytes; labels alternate."""
    return [
        Example(f"train-{n}", "x" * size, None, LABELS[n % 2], n, meta={"text": "x" * size})
        for n, size in enumerate(lengths)
    ]


def encoded_letters(lengths: Iterable[int], sequence_length: int = 128, **more) -> EncodedExamples:
    return encode_examples(
        letters_task(),
        letters([int(length) for length in lengths]),
        byte_tokenizer(),
        sequence_length=sequence_length,
        options={},
        **more,
    )
