"""Lines of JSON -> cloze examples of ids that fit into a sequence."""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from glm_jax.data.sources.compression import BrokenFileError
from glm_jax.data.sources.formats import Format, find_files, wrong_lines
from glm_jax.data.sources.pieces import line_blocks
from glm_jax.errors import UsageError
from glm_jax.io.encodings import LONE_SURROGATE
from glm_jax.tokenizer import Tokenizer
from glm_jax.tokenizer.special import MASK_NAMES, TEXT_OF_SPECIAL_TOKEN

_BLOCK_BYTES = 1 << 20  # encoded together, on all cores


class ClozeExample(NamedTuple):
    """Part A as ids, where its masks are in it, and the answer of each."""

    part_a: Sequence[int]
    masks: Sequence[int]
    answers: Sequence[Sequence[int]]


class _UnusableError(Exception):
    """Says why a line can't be used."""


def read_examples(
    source: str, tokenizer: Tokenizer, sequence_length: int
) -> Iterator[ClozeExample]:
    """The examples of a .jsonl (.ndjson, .json) file, or of a folder, pattern or URL of such files.

    A line is {"context": "The capital of France is [MASK].", "answer": "Paris"}, or has several
    masks, of any kind, and "answers". Part A is what the context is as a prompt of generation: ENC,
    the context, and eos unless it ends in gMASK. Answers are literal text; as in the original, one
    starts with a space, but not where the mask directly follows other text.

    What is too long for a sequence loses the ends of its context, and of these first the longer
    one. The text between masks is kept, and so are the answers.

    Args:
      source: the files may be compressed (.gz, .bz2, .xz, .zst).
      tokenizer: has the masks of the contexts.
      sequence_length: positions of Part A and Part B together.

    Raises:
      UsageError: there is no such file, one can't be read, or a line can't be used: it is no such
        object, has not one answer for each mask, or is too long even when truncated.
    """
    listing = find_files(source, (Format.LINES,), "context")
    if listing.broken:
        raise UsageError(
            f"source {source!r} has a file that can't be used: {listing.broken[0]}; "
            "a pattern can name the others"
        )
    for file in listing.files:
        number = 0
        try:
            for block in line_blocks(file.location, _BLOCK_BYTES):
                lines = list(io.BytesIO(block.content))
                for example in _examples(lines, tokenizer, sequence_length):
                    number += 1
                    if isinstance(example, _UnusableError):
                        if number == 1 and (found := wrong_lines(lines[0])):
                            raise UsageError(f"{file.location} is {found}")
                        raise UsageError(f"line {number} of {file.location} {example}")
                    if example is not None:
                        yield example
        except BrokenFileError as error:
            raise UsageError(f"{file.location} can't be read: {error}") from error


def _examples(
    lines: Sequence[bytes], tokenizer: Tokenizer, sequence_length: int
) -> Iterator[ClozeExample | _UnusableError | None]:
    """For every line its example, or why there is none, or None if it is empty."""
    parsed = [_parsed(line) for line in lines]
    contexts = [item[0] for item in parsed if isinstance(item, tuple)]
    encoded = iter(tokenizer.encode_batch(contexts))
    for item in parsed:
        if not isinstance(item, tuple):
            yield item
            continue
        try:
            yield _example(next(encoded), *item, tokenizer, sequence_length)
        except _UnusableError as error:
            yield error


def _parsed(line: bytes) -> tuple[str, list[str]] | _UnusableError | None:
    """Context and answers of a line, or why it has none, or None if it is empty."""
    line = line.removeprefix(codecs.BOM_UTF8)
    if not line or line.isspace():
        return None
    try:
        record = json.loads(line.decode())
    except UnicodeDecodeError:
        return _UnusableError("is not UTF-8 text")
    except (ValueError, RecursionError):
        return _UnusableError("is not JSON")
    if not isinstance(record, dict):
        return _UnusableError("is no JSON object")
    context = record.get("context")
    answers = record.get("answers", [record.get("answer")])
    if not isinstance(context, str):
        return _UnusableError("has no text under the key 'context'")
    if not (isinstance(answers, list) and all(isinstance(answer, str) for answer in answers)):
        return _UnusableError("has no text under the key 'answer', nor a list under 'answers'")
    if any(LONE_SURROGATE.search(text) for text in (context, *answers)):
        return _UnusableError("has a lone surrogate, half of a character, in its text")
    return context, answers


def _example(
    ids: list[int],
    context: str,
    answers: list[str],
    tokenizer: Tokenizer,
    sequence_length: int,
) -> ClozeExample:
    """The example of a context, encoded as `ids`, and its answers.

    Raises:
      _UnusableError: it can't be made.
    """
    special = tokenizer.special
    names = [name for name in MASK_NAMES if name in special]
    mask_ids = {special[name] for name in names}
    masks = [index for index, id in enumerate(ids) if id in mask_ids]
    texts = "|".join(re.escape(TEXT_OF_SPECIAL_TOKEN[name]) for name in names)
    behind_text = [
        match.start() > 0 and not context[match.start() - 1].isspace()
        for match in re.finditer(texts, context)
    ]
    if not masks:
        written = ", ".join(sorted(TEXT_OF_SPECIAL_TOKEN[name] for name in names))
        raise _UnusableError(f"has none of the tokenizer's masks ({written}) in its context")
    if not len(masks) == len(behind_text) == len(answers):
        raise _UnusableError(f"has {len(masks)} masks in its context, but {len(answers)} answers")
    encoded = [
        tokenizer.encode_text(answer if behind or answer[:1].isspace() else f" {answer}")
        if answer.strip()
        else []
        for answer, behind in zip(answers, behind_text, strict=True)
    ]
    if not all(encoded):
        raise _UnusableError("has an empty answer")
    ends = [] if ids[-1] == special.get("gMASK") else [special["eos"]]
    room = sequence_length - 1 - len(ends) - sum(len(answer) + 1 for answer in encoded)
    first, stop = _context_range(len(ids), masks[0], masks[-1], room)
    part_a = [special["ENC"], *ids[first:stop], *ends]
    return ClozeExample(part_a, [1 + index - first for index in masks], encoded)


def _context_range(length: int, first_mask: int, last_mask: int, room: int) -> tuple[int, int]:
    """Start and end of a context of `length` tokens, so that at most `room` are left.

    Raises:
      _UnusableError: the masks, and the text between them, take more.
    """
    before, behind = first_mask, length - 1 - last_mask
    kept = min(room - (last_mask + 1 - first_mask), before + behind)
    if kept < 0:
        raise _UnusableError(
            f"is too long: masks and answers take {-kept} positions more than the sequence has"
        )
    kept_behind = min(behind, kept // 2)
    kept_before = min(before, kept - kept_behind)
    return first_mask - kept_before, last_mask + 1 + kept - kept_before
