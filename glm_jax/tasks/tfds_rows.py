"""Examples of TFDS data sets -> rows of the official files, for the tasks where they differ.

Features: the builders of tensorflow_datasets 4.9 for super_glue, glue, ag_news_subset,
yelp_polarity_reviews, race and squad. Other data sets that have a task's own fields fit too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from glm_jax.errors import UsageError
from glm_jax.tasks.files import Fields, Row

Rows = list[Row]


def _renamed(
    names: Mapping[str, str], labels: Mapping[str, Any] | None = None, label: str = "label"
) -> Callable[[Sequence[Fields]], Rows]:
    """Fields under the files' names (theirs by TFDS's), and the files' labels for the classes."""

    def convert(rows: Sequence[Fields]) -> Rows:
        found = []
        for row in rows:
            fields = {name: row[source] for source, name in names.items()}
            if "label" in row:
                fields[label] = _label(row, labels)
            if isinstance(row.get("idx"), int):
                fields["idx"] = row["idx"]
            found.append(Fields(fields, row.origin))
        return found

    return convert


def _label(row: Fields, labels: Mapping[str, Any] | None) -> Any:
    if labels is None:
        return row["label"]
    if row["label"] not in labels:
        raise UsageError(
            f"{row.origin}: the class {row['label']!r}; expected one of {', '.join(labels)}"
        )
    return labels[row["label"]]


def _same(*names: str) -> Mapping[str, str]:
    return {name: name for name in names}


def _wsc(rows: Sequence[Fields]) -> Rows:
    spans = ("span1_text", "span1_index", "span2_text", "span2_index")
    found = []
    for row in rows:
        fields = {"text": row["text"], "idx": row["idx"]}
        fields["target"] = {name: row[name] for name in spans}
        if "label" in row:
            fields["label"] = row["label"] == "True"
        found.append(Fields(fields, row.origin))
    return found


def _multirc(rows: Sequence[Fields]) -> Rows:
    """Answers below their questions below their passages."""
    passages: dict[int, Fields] = {}
    questions: dict[tuple[int, int], dict[str, Any]] = {}
    for row in rows:
        index = row["idx"]
        number = index["paragraph"]
        passage = passages.setdefault(
            number,
            Fields(
                {"idx": number, "passage": {"text": row["paragraph"], "questions": []}}, row.origin
            ),
        )
        key = (number, index["question"])
        if key not in questions:
            questions[key] = {"question": row["question"], "idx": key[1], "answers": []}
            passage["passage"]["questions"].append(questions[key])
        answer: dict[str, Any] = {"text": row["answer"], "idx": index["answer"]}
        if "label" in row:
            answer["label"] = int(row["label"] == "True")
        questions[key]["answers"].append(answer)
    return list(passages.values())


def _record(rows: Sequence[Fields]) -> Rows:
    """Queries below their passages; the spans of entities are where these first occur."""
    passages: dict[int, Fields] = {}
    for row in rows:
        number, text = row["idx"]["passage"], row["passage"]
        if number not in passages:
            entities = [_span(text, entity, row.origin) for entity in row["entities"]]
            passages[number] = Fields(
                {"idx": number, "passage": {"text": text, "entities": entities}, "qas": []},
                row.origin,
            )
        answers = [{"text": answer} for answer in row["answers"]]
        query = {"query": row["query"], "idx": row["idx"]["query"], "answers": answers}
        passages[number]["qas"].append(query)
    return list(passages.values())


def _span(text: str, entity: str, origin: str) -> Mapping[str, int]:
    start = text.find(entity)
    if start < 0:
        raise UsageError(f"{origin}: the entity {entity!r} is not in the passage")
    return {"start": start, "end": start + len(entity) - 1}


def _race(rows: Sequence[Fields]) -> Rows:
    names = ("article", "questions", "options", "answers")
    return [
        Fields({"id": row["example_id"], **{name: row[name] for name in names}}, row.origin)
        for row in sorted(rows, key=lambda row: row["example_id"])
    ]


def _yelp(rows: Sequence[Fields]) -> Rows:
    """TFDS leaves the doubled quotation marks of the file as they are."""
    return [
        Fields({"0": row["label"], "1": row["text"].replace('""', '"')}, row.origin) for row in rows
    ]


def _squad(rows: Sequence[Fields]) -> Rows:
    found = []
    for row in rows:
        answers = [{"text": text} for text in row["answers"]["text"]]
        question = {"id": row["id"], "question": row["question"], "answers": answers}
        paragraph = {"context": row["context"], "qas": [question]}
        found.append(Fields({"data": [{"paragraphs": [paragraph]}]}, row.origin))
    return found


_ENTAILMENT = _same("premise", "hypothesis")
_BOOLEAN = {"False": False, "True": True}


def _rte(rows: Sequence[Fields]) -> Rows:
    """Of SuperGLUE, or of GLUE, which has other names for the texts."""
    from_glue = bool(rows) and "sentence1" in rows[0]
    names = {"sentence1": "premise", "sentence2": "hypothesis"} if from_glue else _ENTAILMENT
    return _renamed(names)(rows)


CONVERSIONS: Mapping[str, Callable[[Sequence[Fields]], Rows]] = {
    "boolq": _renamed(_same("passage", "question"), _BOOLEAN),
    "cb": _renamed(_ENTAILMENT),
    "copa": _renamed(
        _same("premise", "choice1", "choice2", "question"), {"choice1": 0, "choice2": 1}
    ),
    "wic": _renamed(_same("word", "sentence1", "sentence2"), _BOOLEAN),
    "rte": _rte,
    "ax-g": _renamed(_ENTAILMENT),
    "ax-b": _renamed(_same("sentence1", "sentence2")),
    "wsc": _wsc,
    "wsc1": _wsc,
    "multirc": _multirc,
    "record": _record,
    "sst2": _renamed(_same("sentence"), {"negative": "0", "positive": "1"}),
    "cola": _renamed(_same("sentence"), {"unacceptable": "0", "acceptable": "1"}),
    "mrpc": _renamed(
        {"sentence1": "#1 String", "sentence2": "#2 String"},
        {"not_equivalent": "0", "equivalent": "1"},
        "Quality",
    ),
    "qqp": _renamed(
        _same("question1", "question2"),
        {"not_duplicate": "0", "duplicate": "1"},
        "is_duplicate",
    ),
    "qnli": _renamed(_same("question", "sentence")),
    **dict.fromkeys(
        ("mnli", "mnli-mm"),
        _renamed({"premise": "sentence1", "hypothesis": "sentence2"}, label="gold_label"),
    ),
    "agnews": _renamed(
        {"title": "1", "description": "2"},
        {"World": "1", "Sports": "2", "Business": "3", "Sci/Tech": "4"},
        "0",
    ),
    "yelp-polarity": _yelp,
    "race": _race,
    "squad": _squad,
}
