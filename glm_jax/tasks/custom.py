"""Tasks that are described by a pattern and words, without Python.

A pattern is a text with fields of the rows in braces and one mask: "{review} It was [MASK]."
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from glm_jax.errors import UsageError
from glm_jax.tasks.example import Example, Label
from glm_jax.tasks.files import origin_of
from glm_jax.tasks.patterns import MASK, SLOT, Part, Pattern, Shortenable
from glm_jax.tasks.task import Row, Task

_MARKS = {"[MASK]": MASK, "[PROMPT]": SLOT}
_BORDER = "||"
_FIELD = re.compile(r"\{(\w+)!?\}")
_PARTS = re.compile(r"(\{\w+!?\}|\[MASK\]|\[PROMPT\])")


def custom_task(
    patterns: Sequence[str],
    words: Mapping[str, str],
    *,
    label: str = "label",
    metrics: Sequence[str] = ("accuracy",),
) -> Task:
    """A task of JSON lines: `train.jsonl`, `dev.jsonl`, `test.jsonl`.

    In a pattern, `{field}` is a field of a row, which is shortened where the sequence is too short,
    `{field!}` one that is not, `[MASK]` the blank, `[PROMPT]` a slot for continuous prompts, and
    `||` the border of the two lists that truncation balances. A space before a field or the mask
    belongs to the text or word that takes its place.

    Args:
      patterns: by their ids.
      words: the word that fills the blank, for each label.
      label: the field with the label.
      metrics: names of the reported metrics.

    Raises:
      UsageError: no pattern, a pattern without exactly one mask or without fields, or with a brace
        that is part of no field, fewer than two labels, or two labels with one word.
    """
    fields = _checked_fields(patterns, words)

    def examples(rows: Sequence[Row], split: str) -> list[Example]:
        return [_example(row, split, number, fields, label) for number, row in enumerate(rows)]

    def questions(example: Example, pattern: int) -> list[Pattern]:
        first, _, second = patterns[pattern].partition(_BORDER)
        return [Pattern(_parts(first, example), _parts(second, example))]

    def verbalizers(pattern: int) -> Mapping[Label, str]:
        space = " " if re.search(r"\s\[MASK\]", patterns[pattern]) else ""
        return {name: space + word.lstrip() for name, word in words.items()}

    return Task(
        name="custom",
        labels=tuple(words),
        examples=examples,
        pattern=questions,
        num_patterns=len(patterns),
        verbalizers=verbalizers,
        metrics=metrics,
        has_slots=all("[PROMPT]" in pattern for pattern in patterns),
    )


def _checked_fields(patterns: Sequence[str], words: Mapping[str, str]) -> list[str]:
    """The fields of all patterns, once these have been checked."""
    if len(words) < 2 or len(set(words.values())) < len(words):
        raise UsageError(
            f"task.words is {dict(words)!r}; expected a different word for each of at least two "
            "labels"
        )
    if not patterns:
        raise UsageError("task.patterns is empty; expected at least one, such as '{text} [MASK]'")
    for pattern in patterns:
        if pattern.count("[MASK]") != 1:
            raise UsageError(
                f"the pattern {pattern!r} has {pattern.count('[MASK]')} masks; expected one [MASK]"
            )
        if re.search("[{}]", _FIELD.sub("", pattern)):
            raise UsageError(
                f"the pattern {pattern!r} has a brace that is part of no field; expected {{field}}"
            )
    fields = list(dict.fromkeys(field for pattern in patterns for field in fields_of(pattern)))
    if not fields:
        raise UsageError(f"the pattern {patterns[0]!r} has no field such as {{text}}")
    return fields


def fields_of(pattern: str) -> list[str]:
    """The fields that a pattern names."""
    return _FIELD.findall(pattern)


def _example(row: Row, split: str, number: int, fields: Sequence[str], label: str) -> Example:
    origin = origin_of(row, number)
    meta = {field: _text(row[field], field, origin) for field in fields}
    first, *others = meta.values()
    found = row.get(label)
    if isinstance(found, list | dict):
        raise UsageError(f"{origin}: the label {label!r} is {found!r}; expected text or a number")
    return Example(
        guid=f"{split}-{number}",
        text_a=first,
        text_b=others[0] if others else None,
        label=None if found is None else str(found),
        idx=number,
        meta=meta,
    )


def _text(value: object, field: str, origin: str) -> str:
    """A field as text.

    Raises:
      UsageError: it is neither text nor a number.
    """
    if not isinstance(value, str | int | float):
        shown = "null" if value is None else repr(value)
        raise UsageError(f"{origin}: the field {field!r} is {shown}; expected text")
    return str(value)


def _parts(pattern: str, example: Example) -> list[Part]:
    """The parts of one list of a pattern."""
    parts: list[Part] = []
    space = ""
    for piece in _PARTS.split(pattern):
        if piece in _MARKS:
            parts.append(_MARKS[piece])
            space = ""
        elif field := re.fullmatch(r"\{(\w+)(!?)\}", piece):
            text = space + example.meta[field[1]]
            parts.append(text if field[2] else Shortenable(text))
            space = ""
        elif piece:
            literal = piece.rstrip()
            space = piece[len(literal) :]
            if literal:
                parts.append(literal)
    return parts
