"""Kinds and opinions of texts: AG News, Yahoo Answers, Yelp reviews, X-Stance.

Files, patterns and verbalizers: reference-finetune.md, sections 7 and 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from glm_jax.tasks.example import Example, Label
from glm_jax.tasks.files import comma_separated, json_lines
from glm_jax.tasks.patterns import MASK, Part, Pattern, Shortenable
from glm_jax.tasks.task import Row, Task
from glm_jax.tasks.text import standardize

CLASSIFICATION_DATA = "https://github.com/zhangxiangxiao/Crepe"
XSTANCE = "https://github.com/ZurichNLP/xstance"
CSV = {"train": ("train.csv",), "dev": ("test.csv",)}

_AGNEWS = (" World", " Sports", " Business", " Tech")
_YAHOO = (
    *(" Society", " Science", " Health", " Education", " Computer"),
    *(" Sports", " Business", " Entertainment", " Relationship", " Politics"),
)
_YELP_FULL = (" terrible", " bad", " okay", " good", " great")
_YELP_POLARITY = (" bad", " good")


def _agnews_examples(rows: Sequence[Row], split: str) -> list[Example]:
    return [
        Example(
            guid=f"{split}-{number}",
            text_a=standardize(row["1"].replace("\\", " ")),
            text_b=standardize(row["2"].replace("\\", " ")),
            label=row["0"],
        )
        for number, row in enumerate(rows)
    ]


def _unescaped(text: str) -> str:
    return text.replace("\\n", " ").replace("\\", " ")


def _yahoo_examples(rows: Sequence[Row], split: str) -> list[Example]:
    return [
        Example(
            guid=f"{split}-{number}",
            text_a=standardize(" ".join((_unescaped(row["1"]), _unescaped(row["2"])))),
            text_b=standardize(_unescaped(row["3"])),
            label=row["0"],
        )
        for number, row in enumerate(rows)
    ]


def _topic_pattern(second_start: str):
    def questions(example: Example, pattern: int) -> list[Pattern]:
        first, second = Shortenable(example.text_a), Shortenable(example.second)
        parts: Sequence[Part] = (
            (MASK, ":", first, second),
            (MASK, second_start, first, second),
            (first, "(", MASK, ")", second),
            (first, second, "(", MASK, ")"),
            ("[ Category:", MASK, "]", first, second),
            (MASK, "-", first, second),
        )[pattern]
        return [Pattern(parts)]

    return questions


def _yelp_examples(rows: Sequence[Row], split: str) -> list[Example]:
    return [
        Example(f"{split}-{number}", standardize(_unescaped(row["1"])), label=row["0"])
        for number, row in enumerate(rows)
    ]


def _yelp_pattern(example: Example, pattern: int) -> list[Pattern]:
    text = Shortenable(example.text_a)
    return [
        (
            Pattern(("It was", MASK, ".", text)),
            Pattern((text, ". All in all, it was", MASK, ".")),
            Pattern(("Just", MASK, "!"), (text,)),
            Pattern((text,), (" In summary, the restaurant is", MASK, ".")),
        )[pattern]
    ]


def _from_files(name: str, words: Sequence[str], **more) -> Task:
    """A task whose labels are numbers from 1, in a file of comma-separated values."""
    verbalizers: Mapping[Label, str] = {str(n): word for n, word in enumerate(words, 1)}
    return Task(
        name=name,
        labels=tuple(verbalizers),
        files=CSV,
        rows=comma_separated,
        published_at=CLASSIFICATION_DATA,
        verbalizers=lambda pattern: verbalizers,
        **more,
    )


def _xstance_examples(language: str | None):
    def examples(rows: Sequence[Row], split: str) -> list[Example]:
        return [
            Example(
                guid=row["id"],
                text_a=standardize(row["question"]),
                text_b=standardize(row["comment"]),
                label=row["label"],
            )
            for row in rows
            if language in (None, row["language"])
        ]

    return examples


def _xstance_pattern(example: Example, pattern: int) -> list[Pattern]:
    first, second = Shortenable(example.text_a), Shortenable(example.second)
    if pattern % 2 == 0:
        return [Pattern(('"', first, '"'), (MASK, '. "', second, '"'))]
    return [Pattern((first,), (MASK, ".", second))]


def _xstance_words(pattern: int) -> Mapping[Label, str]:
    words = (("Ja", "Nein"), ("Yes", "No"), ("Oui", "Non"))[pattern // 2]
    return {"FAVOR": words[0], "AGAINST": words[1]}


def _xstance(name: str, language: str | None) -> Task:
    return Task(
        name=name,
        labels=("FAVOR", "AGAINST"),
        files={"train": ("train.jsonl",), "dev": ("test.jsonl",)},
        rows=json_lines,
        examples=_xstance_examples(language),
        published_at=XSTANCE,
        texts=("question", "comment", "language"),
        pattern=_xstance_pattern,
        num_patterns=6,
        verbalizers=_xstance_words,
    )


TASKS = (
    _from_files(
        *("agnews", _AGNEWS),
        texts=("0", "1", "2"),
        examples=_agnews_examples,
        pattern=_topic_pattern(" News:"),
        num_patterns=6,
    ),
    _from_files(
        *("yahoo", _YAHOO),
        texts=("0", "1", "2", "3"),
        examples=_yahoo_examples,
        pattern=_topic_pattern(" Question:"),
        num_patterns=6,
    ),
    _from_files(
        *("yelp-polarity", _YELP_POLARITY),
        texts=("0", "1"),
        examples=_yelp_examples,
        pattern=_yelp_pattern,
        num_patterns=4,
    ),
    _from_files(
        *("yelp-full", _YELP_FULL),
        texts=("0", "1"),
        examples=_yelp_examples,
        pattern=_yelp_pattern,
        num_patterns=4,
    ),
    _xstance("xstance", None),
    _xstance("xstance-de", "de"),
    _xstance("xstance-fr", "fr"),
)
