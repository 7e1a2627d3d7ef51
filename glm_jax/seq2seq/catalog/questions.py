"""Questions about passages: their answers (SQuAD, CMRC), and the questions themselves.

Files and encodings: reference-finetune.md, section 9.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from etils import epath

from glm_jax.errors import UsageError
from glm_jax.seq2seq.files import Reader, existing
from glm_jax.seq2seq.source import Source, SourceEncoder
from glm_jax.seq2seq.task import GIVEN, Seq2SeqTask
from glm_jax.tasks.example import Example
from glm_jax.tasks.files import Fields, whole_json

NO_ANSWER = "N/A"
QUESTION_INPUTS = ("context", "question")
_SQUAD = "https://rajpurkar.github.io/SQuAD-explorer"


# A passage, and a question with its answers.
_Question = tuple[str, Mapping[str, Any]]
_Maker = Callable[[Iterable[_Question], str], list[Example]]


def _questions(file: epath.Path) -> Iterator[_Question]:
    """The questions of a file in SQuAD's format."""
    for article in whole_json(existing(file))[0]["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                _check_texts(paragraph, ("context",))
                _check_texts(question, ("question",))
                yield paragraph["context"], question


def _check_texts(fields: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raises TypeError where a field is no text, or has none."""
    for name in names:
        if not isinstance(fields[name], str) or not fields[name].strip():
            raise TypeError(f"{name} is {fields[name]!r}; expected text")


def _answers(question: Mapping[str, Any]) -> list[str]:
    """The distinct answers, in the file's order."""
    return list(dict.fromkeys(answer["text"] for answer in question.get("answers", ())))


def _stored(make: _Maker) -> Callable[[Sequence[Fields], str], list[Example]]:
    """Rows of a TFDS data set with SQuAD's features, or one answer each -> examples."""

    def question(row: Fields) -> _Question:
        if "answer" in row:
            context = row["context_passage" if "context_passage" in row else "context"]
            return context, {"question": row["question"], "answers": [{"text": row["answer"]}]}
        answers = [{"text": text} for text in row["answers"]["text"]]
        return row["context"], {"id": row["id"], "question": row["question"], "answers": answers}

    def examples(rows: Sequence[Fields], split: str) -> list[Example]:
        try:
            return make([question(row) for row in rows], split)
        except (KeyError, TypeError) as error:
            raise UsageError(f"{rows[0].origin} does not have SQuAD's features: {error}") from error

    return examples


def _reader(files: Mapping[str, str], make: _Maker) -> Reader:
    """Reads the file of a split.

    A row without a field that is needed raises `UsageError`.
    """

    def examples(folder: epath.Path, split: str) -> list[Example]:
        file = folder / files[split]
        try:
            return make(_questions(file), split)
        except (AttributeError, KeyError, TypeError) as error:
            raise UsageError(f"{file} is not in SQuAD's format: {error}") from error

    return examples


def _one_for_each_answer(questions: Iterable[_Question], split: str) -> list[Example]:
    """An example for every distinct answer; one for a question of a test split without any."""
    found = [
        (context, question["question"], answer)
        for context, question in questions
        for answer in _answers(question) or ([""] if split == "test" else [])
    ]
    return [
        Example(f"{split}-{number}", context, meta={"question": question, "answer": answer})
        for number, (context, question, answer) in enumerate(found)
    ]


def _one_for_each_question(questions: Iterable[_Question], split: str) -> list[Example]:
    return [
        Example(
            f"{split}-{number}",
            context,
            idx=question["id"],
            meta={
                "context": context,
                "question": question["question"],
                "answers": _answers(question) or [NO_ANSWER],
            },
        )
        for number, (context, question) in enumerate(questions)
    ]


def _asked_question(inputs: Mapping[str, str]) -> Example:
    """A question about a passage, as of a file without answers."""
    context, question = inputs["context"], inputs["question"]
    meta = {"context": context, "question": question, "answers": [NO_ANSWER], "answer": ""}
    return Example(GIVEN, context, idx=GIVEN, meta=meta)


def _asked_answer(inputs: Mapping[str, str]) -> Example:
    """An answer that a passage has, of which the question is asked for."""
    return Example(GIVEN, inputs["context"], meta={"question": "", "answer": inputs["answer"]})


def _answer_target(example: Example) -> tuple[str, ...]:
    return (f" {example.meta['answer']}",)


def _question_target(example: Example) -> tuple[str, ...]:
    return (f" {example.meta['question']}",)


def _question_to_generate(example: Example, encoder: SourceEncoder) -> Source:
    """The passage around the answer, the blank of the question, and the answer."""
    mask, answer = encoder.sentence_mask, example.meta["answer"]
    passage = encoder.encode(f"{example.text_a.rstrip()} Question:")
    after = encoder.encode(f" Answer: {answer}")
    space = encoder.length - len(after) - 2
    if space < 0:
        raise UsageError(f"the answer alone needs a source length of {len(after) + 2}")
    if len(passage) > space:
        start = max(_find(encoder.encode(f" {answer}"), passage) - space // 2, 0)
        passage = passage[start : start + space]
    return encoder.source([encoder.start, *passage, mask, *after], mask)


def _find(part: Sequence[int], ids: Sequence[int]) -> int:
    """Index of the first occurrence of `part` in `ids`, 0 if there is none."""
    matches = (n for n in range(len(ids) - len(part) + 1) if ids[n : n + len(part)] == part)
    return next(matches, 0)


def _question_before(example: Example, encoder: SourceEncoder) -> Source:
    """The question, the blank of the answer, and a window of the passage."""
    question = encoder.encode(f" {example.meta['question']}")
    ids = [encoder.start, *question, encoder.sentence_mask, *encoder.encode(".")]
    return encoder.source([*ids, *encoder.encode(f" {example.text_a}")], encoder.sentence_mask)


def _windows(example: Example, encoder: SourceEncoder) -> list[Example]:
    """Windows of the passage, which start every half source length.

    The answer of a window is the first one if the window has it, else `NO_ANSWER`.

    Raises:
      UsageError: the question leaves no space for a window.
    """
    step = encoder.length // 2
    size = encoder.length - 3 - len(encoder.encode(f" {example.meta['question']}"))
    if size < 1:
        raise UsageError(
            f"example {example.guid}: the question leaves no space for its passage in a source "
            f"length of {encoder.length}"
        )
    decode = encoder.tokenizer.decode
    answer = example.meta["answers"][0]
    decoded_answer = decode(encoder.encode(answer))
    ids = encoder.encode(example.text_a)
    windows = []
    for start in range(0, max(len(ids), 1), step):
        kept = ids[start : start + size]
        text = decode(kept)
        found = answer if decoded_answer in text else NO_ANSWER
        meta = {**example.meta, "answer": found}
        windows.append(replace(example, text_a=text, meta=meta))
        if len(kept) < size:
            break
    return windows


def _has_answer(example: Example) -> bool:
    return example.meta["answer"] != NO_ANSWER


def _cmrc_source(example: Example, encoder: SourceEncoder) -> Source:
    """The question, the blank of the answer, and the passage; a long question is shortened."""
    before, between = encoder.encode("问题："), encoder.encode("答案：")
    question = encoder.encode(f"问题：{example.meta['question']}答案：")
    space = encoder.length - 2
    if len(question) > space:
        kept = max(space - len(between), len(before))
        question = [*question[:kept], *between]
    ids = [encoder.start, *question, encoder.mask, *encoder.encode(example.text_a)]
    return encoder.source(ids, encoder.mask)


def _squad(name: str, version: str, **settings: Any) -> Seq2SeqTask:
    train, dev = f"train-{version}.json", f"dev-{version}.json"
    files = {"train": train, "dev": dev, "test": dev}
    return Seq2SeqTask(
        name=name,
        read=_reader(files, _one_for_each_question),
        source=_question_before,
        published_at=_SQUAD,
        files={split: (name,) for split, name in files.items()},
        target=_answer_target,
        of_rows=_stored(_one_for_each_question),
        stored_splits={"test": ("validation",)},
        inputs=QUESTION_INPUTS,
        asked=_asked_question,
        metrics=("F1", "EM"),
        windows=_windows,
        reference_is_decoded=False,
        **settings,
    )


_SPLITS = {split: f"{split}.json" for split in ("train", "dev", "test")}
TASKS = (
    Seq2SeqTask(
        name="squad_generation",
        read=_reader(_SPLITS, _one_for_each_answer),
        source=_question_to_generate,
        published_at="https://github.com/microsoft/unilm",
        files={split: (name,) for split, name in _SPLITS.items()},
        target=_question_target,
        of_rows=_stored(_one_for_each_answer),
        inputs=("context", "answer"),
        asked=_asked_answer,
        metrics=("rouge-1", "rouge-l", "rouge-2"),
    ),
    _squad("squad", "v2.0"),
    _squad("squad_v1", "v1.1", in_window=_has_answer),
    Seq2SeqTask(
        name="cmrc",
        read=_reader(_SPLITS, _one_for_each_answer),
        source=_cmrc_source,
        published_at="https://github.com/ymcui/cmrc2018",
        files={split: (name,) for split, name in _SPLITS.items()},
        target=_answer_target,
        of_rows=_stored(_one_for_each_answer),
        inputs=QUESTION_INPUTS,
        asked=_asked_question,
        metrics=("F1", "EM"),
    ),
)
