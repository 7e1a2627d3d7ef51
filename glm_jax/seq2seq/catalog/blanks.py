"""Texts with several blanks: random ones (a blank language model), and extraction.

Files and encodings: reference-finetune.md, section 9. MASK is the mask of
every model, and texts without a blank are refused (section 14, fault 19).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import groupby

import numpy as np
from etils import epath

from glm_jax.errors import UsageError
from glm_jax.seq2seq.detokenize import blanks
from glm_jax.seq2seq.files import existing, line_pairs, source_files
from glm_jax.seq2seq.source import Source, SourceEncoder
from glm_jax.seq2seq.task import GIVEN, TEXT, Seq2SeqTask
from glm_jax.tasks.example import Example
from glm_jax.tasks.files import lines_of

BLANK = "[MASK]"
_SPLITS = {"train": "train", "dev": "valid", "test": "test"}
_PUBLISHED_AT = "https://github.com/Varal7/blank_language_model"


def blank_words(example: Example, ratio: float, random: np.random.Generator) -> Example:
    """The example with random words of its text replaced by blanks, where neighbours share one.

    Args:
      example: with the text as its second one; the first may have other blanks.
      ratio: share of its words, rounded down.
      random: what draws them.
    """
    words = example.second.split()
    chosen = random.choice(len(words), int(len(words) * ratio), replace=False)
    hidden = np.isin(np.arange(len(words)), chosen)
    text, targets = [], []
    for is_blank, group in groupby(zip(hidden, words, strict=True), key=lambda item: bool(item[0])):
        run = [word for _, word in group]
        text += [BLANK] if is_blank else run
        if is_blank:
            targets.append(" ".join(run))
    meta = {**example.meta, "targets": targets}
    return Example(example.guid, " ".join(text), example.text_b, meta=meta)


def blank_task(ratio: float) -> Seq2SeqTask:
    """The blank language model's task.

    Args:
      ratio: share of the words that training hides, and in the name of the test split's input.
    """
    return Seq2SeqTask(
        name="blank",
        read=partial(_read_blanks, ratio),
        source=_text_with_blanks,
        published_at=_PUBLISHED_AT,
        files={split: (f"{name}.txt",) for split, name in _SPLITS.items()},
        target=lambda example: tuple(f" {text}" for text in example.meta["targets"]),
        asked=_asked,
        metrics=(),
        several_blanks=True,
        draw=lambda example, random: blank_words(example, ratio, random),
        reference_is_decoded=False,
    )


def _read_blanks(ratio: float, folder: epath.Path, split: str) -> list[Example]:
    file = existing(folder / f"{_SPLITS[split]}.txt")
    texts = [blanks(line.strip()) for line in lines_of(file)]
    sources = texts
    if split == "test":
        asked = existing(folder / "blank" / f"test.maskratio{ratio:.1f}.blank")
        sources = [blanks(line.strip()) for line in lines_of(asked)]
        if len(sources) != len(texts):
            raise UsageError(f"{asked} has {len(sources)} lines, {file} has {len(texts)}")
    pairs = enumerate(zip(sources, texts, strict=True))
    return [Example(f"{split}-{number}", source, text) for number, (source, text) in pairs]


def _text_with_blanks(example: Example, encoder: SourceEncoder) -> Source:
    """The text alone, whose masks are all filled.

    Raises:
      UsageError: it has none.
    """
    ids = tuple(encoder.encode(f" {example.text_a}")[: encoder.length])
    found = tuple(index for index, id in enumerate(ids) if id == encoder.mask)
    if not found:
        raise UsageError(f"the text has no {BLANK} among its first {encoder.length} tokens")
    return Source(ids, found)


def _asked(inputs: Mapping[str, str]) -> Example:
    return Example(GIVEN, blanks(inputs[TEXT].strip()))


def _parts(example: Example) -> tuple[str, ...]:
    return tuple(f" {part}" for part in example.second.split("|"))


def _read_parts(folder: epath.Path, split: str) -> list[Example]:
    examples = line_pairs(str, str, _SPLITS)(folder, split)
    for example in examples:
        masks = example.text_a.count(BLANK)
        parts = None if example.text_b is None else len(_parts(example))
        if parts is not None and masks != parts:
            raise UsageError(
                f"example {example.guid} of task extraction has {masks} {BLANK} in its source, but "
                f"{parts} parts in its target"
            )
    return examples


TASKS = (
    blank_task(0.1),
    Seq2SeqTask(
        name="extraction",
        read=_read_parts,
        source=_text_with_blanks,
        published_at="",
        files=source_files(_SPLITS),
        target=_parts,
        metrics=(),
        several_blanks=True,
        reference_is_decoded=False,
    ),
)
