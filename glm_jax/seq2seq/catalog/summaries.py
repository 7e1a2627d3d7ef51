"""Summaries and headlines: CNN/DailyMail, XSum, Gigaword, and texts of one's own.

Files and encodings: reference-finetune.md, section 9.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from etils import epath

from glm_jax.errors import UsageError
from glm_jax.seq2seq.detokenize import cnn_dm_source, cnn_dm_target, gigaword
from glm_jax.seq2seq.files import (
    SPLIT_NAMES,
    TextFunction,
    existing,
    joined_lines,
    line_pairs,
    own_pairs,
    source_files,
    stored_pairs,
)
from glm_jax.seq2seq.fix_tokenization import fix_cnn_dm, fix_gigaword
from glm_jax.seq2seq.source import Source, SourceEncoder
from glm_jax.seq2seq.task import GIVEN, TEXT, Seq2SeqTask
from glm_jax.tasks.example import Example
from glm_jax.tasks.files import read_text, whole_json
from glm_jax.tasks.text import standardize

_S2S_FT = "https://github.com/microsoft/unilm/tree/master/s2s-ft"
_XSUM_SPLITS = "XSum-TRAINING-DEV-TEST-SPLIT-90-5-5.json"
_XSUM_NAMES = {"train": "train", "dev": "validation", "test": "test"}
_XSUM_SECTION = re.compile(r"\[SN\](.*?)\[SN\]")


def summary_source(example: Example, encoder: SourceEncoder) -> Source:
    """The blank, then the text, whose end is left out where it is too long."""
    mask = encoder.sentence_mask
    ids = [encoder.start, mask, *encoder.encode(" Content:"), *encoder.encode(f" {example.text_a}")]
    return encoder.source(ids, mask)


def own_source(example: Example, encoder: SourceEncoder) -> Source:
    """The text, whose start is left out where it is too long, then the blank."""
    mask, special = encoder.sentence_mask, encoder.tokenizer.special
    kept = max(encoder.length - 3, 0)
    text = encoder.encode(example.text_a)[-kept:] if kept else []
    return encoder.source([encoder.start, *text, mask, special["eos"]], mask)


def _read_xsum(folder: epath.Path, split: str) -> list[Example]:
    ids = whole_json(existing(folder / _XSUM_SPLITS))[0].get(_XSUM_NAMES[split])
    if not isinstance(ids, list):
        raise UsageError(f"{folder / _XSUM_SPLITS} has no list {_XSUM_NAMES[split]!r}")
    examples = []
    for number, id in enumerate(ids):
        sections = _xsum_sections(existing(folder / f"{id}.summary"))
        source, target = sections["RESTBODY"], sections["FIRST-SENTENCE"]
        examples.append(Example(f"{split}-{number}", source, target))
    return examples


def _xsum_sections(file: epath.Path) -> dict[str, str]:
    """The sections of an article by name, their lines joined by spaces.

    Raises:
      UsageError: the article or its summary is missing.
    """
    sections: dict[str, list[str]] = {}
    name = ""
    for line in map(str.strip, read_text(file).splitlines()):
        if header := _XSUM_SECTION.fullmatch(line):
            name = header[1]
        elif line:
            sections.setdefault(name, []).append(line)
    for needed in ("RESTBODY", "FIRST-SENTENCE"):
        if needed not in sections:
            raise UsageError(f"{file} has no text in the section {needed}")
    return {name: " ".join(lines) for name, lines in sections.items()}


def _asked(source_text: TextFunction) -> Callable[[Mapping[str, str]], Example]:
    """What a user gives, changed as the sources of the files are."""
    return lambda inputs: Example(GIVEN, source_text(joined_lines(inputs[TEXT])))


def _cnn_dm_source(text: str) -> str:
    return cnn_dm_source(standardize(text))


def _gigaword(text: str) -> str:
    return gigaword(standardize(text))


def _highlights(text: str) -> str:
    """A summary as TFDS has it, with a sentence per line."""
    return cnn_dm_target(standardize(" <S_SEP> ".join(map(str.strip, text.splitlines()))))


def _one_line(change: TextFunction) -> TextFunction:
    return lambda text: change(joined_lines(text))


TASKS = (
    Seq2SeqTask(
        name="cnn_dm",
        read=line_pairs(_cnn_dm_source, lambda text: cnn_dm_target(standardize(text))),
        source=summary_source,
        asked=_asked(_cnn_dm_source),
        of_rows=stored_pairs("article", "highlights", _one_line(_cnn_dm_source), _highlights),
        published_at=_S2S_FT,
        files=source_files(),
        rouge_fix=fix_cnn_dm,
    ),
    Seq2SeqTask(
        name="cnn_dm_original",
        read=line_pairs(standardize, standardize),
        source=summary_source,
        asked=_asked(standardize),
        of_rows=stored_pairs(
            "article", "highlights", _one_line(standardize), _one_line(standardize)
        ),
        published_at=_S2S_FT,
        files=source_files(),
    ),
    Seq2SeqTask(
        name="gigaword",
        read=line_pairs(_gigaword, _gigaword),
        source=summary_source,
        asked=_asked(_gigaword),
        of_rows=stored_pairs("document", "summary", _gigaword, _gigaword),
        published_at=_S2S_FT,
        files=source_files(),
        rouge_fix=fix_gigaword,
    ),
    Seq2SeqTask(
        name="xsum",
        read=_read_xsum,
        source=summary_source,
        of_rows=stored_pairs("document", "summary", joined_lines, joined_lines),
        published_at="https://github.com/EdinburghNLP/XSum",
        files=dict.fromkeys(_XSUM_NAMES, (_XSUM_SPLITS,)),
    ),
    Seq2SeqTask(
        name="customization",
        read=own_pairs,
        source=own_source,
        asked=lambda inputs: Example(GIVEN, inputs[TEXT]),
        of_rows=stored_pairs("source", "target"),
        published_at="",
        files={split: (f"{name}.jsonl", f"{name}.source") for split, name in SPLIT_NAMES.items()},
        reference_is_decoded=False,
    ),
)
