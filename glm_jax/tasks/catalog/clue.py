"""CLUE's tasks, in Chinese: AFQMC, TNEWS, CLUEWSC.

Files, patterns and verbalizers: reference-finetune.md, sections 7 and 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from glm_jax.tasks.example import Example, Label
from glm_jax.tasks.files import CLUE, json_lines
from glm_jax.tasks.patterns import MASK, SLOT, Pattern, Shortenable
from glm_jax.tasks.task import Row, Segments, Task

FILES = {split: (f"{split}.json",) for split in ("train", "dev", "test")}
TNEWS_WORDS: Mapping[Label, str] = {
    **{"100": "故事", "101": "文化", "102": "娱乐", "103": "体育", "104": "金融"},
    **{"106": "居家", "107": "汽车", "108": "教育", "109": "科技", "110": "军事"},
    **{"112": "旅游", "113": "世界", "114": "股票", "115": "农业", "116": "游戏"},
}


def _fields(first: str, second: str):
    def examples(rows: Sequence[Row], split: str) -> list[Example]:
        return [
            Example(f"{split}-{number}", row[first], row[second], row.get("label"), number)
            for number, row in enumerate(rows)
        ]

    return examples


def _afqmc_pattern(example: Example, pattern: int) -> list[Pattern]:
    first, second = Shortenable(example.text_a), Shortenable(example.second)
    if pattern == 0:
        return [Pattern((first, "？"), ("你是说", second, "？", MASK, "。"))]
    return [Pattern((first, "？"), (MASK, "，", second))]


def _tnews_pattern(example: Example, pattern: int) -> list[Pattern]:
    title, keywords = Shortenable(example.text_a), Shortenable(example.second)
    return [Pattern(("标题：", title, "关键词：", keywords, "类别：", MASK))]


def _wsc_examples(rows: Sequence[Row], split: str) -> list[Example]:
    examples = []
    for number, row in enumerate(rows):
        target = row["target"]
        idx = row.get("idx", row.get("id", number))
        meta = {
            "span1_text": target["span1_text"],
            "span2_text": target["span2_text"],
            "span1_index": target["span1_index"],
            "span2_index": target["span2_index"],
            "span1_length": len(target["span1_text"]),
            "span2_length": len(target["span2_text"]),
        }
        guid, first = f"{split}-{idx}", target["span1_index"]
        examples.append(Example(guid, row["text"], first, row.get("label"), idx, meta=meta))
    return examples


def _marked_text(example: Example) -> str:
    """The text with asterisks around the pronoun and hashes around the other span."""
    text, meta = example.text_a, example.meta
    marks = [
        (meta["span1_index"], meta["span1_length"], "#"),
        (meta["span2_index"], meta["span2_length"], "*"),
    ]
    for start, length, mark in sorted(marks, reverse=True):
        end = start + length
        text = f"{text[:start]}{mark}{text[start:end]}{mark}{text[end:]}"
    return text


def _wsc_pattern(example: Example, pattern: int) -> list[Pattern]:
    text, meta = Shortenable(_marked_text(example)), example.meta
    pronoun, span = meta["span2_text"], meta["span1_text"]
    if pattern == 0:
        return [Pattern((SLOT, text, f"代词'*{pronoun}*'", MASK, f"指#{span}#."))]
    start = "在如下的句子中："
    return [Pattern((start, text, f"代词'*{pronoun}*'", MASK, f"指'#{span}#'."))]


def _wsc_segments(example: Example) -> Segments:
    return Segments(example.text_a, example.meta["span1_text"])


def _task(name: str, **more) -> Task:
    shared = {"files": FILES, "rows": json_lines, "sorted_predictions": True}
    return Task(name=name, published_at=CLUE, submission=f"{name}_predict.json", **shared, **more)


TASKS = (
    _task(
        "afqmc",
        texts=("sentence1", "sentence2"),
        labels=("0", "1"),
        examples=_fields("sentence1", "sentence2"),
        pattern=_afqmc_pattern,
        num_patterns=2,
        verbalizers=lambda pattern: {"0": "▁不是", "1": "▁是"},
    ),
    _task(
        "tnews",
        texts=("sentence", "keywords"),
        labels=tuple(TNEWS_WORDS),
        examples=_fields("sentence", "keywords"),
        pattern=_tnews_pattern,
        num_patterns=1,
        verbalizers=lambda pattern: TNEWS_WORDS,
    ),
    _task(
        "cluewsc",
        texts=("text", "target.span1_text", "target.span2_text"),
        labels=("false", "true"),
        examples=_wsc_examples,
        pattern=_wsc_pattern,
        num_patterns=2,
        verbalizers=lambda pattern: {"false": "不是", "true": "是"},
        segments=_wsc_segments,
        has_slots=True,
    ),
)
