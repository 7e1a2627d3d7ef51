"""Splits of tasks: what is read from which files."""

from __future__ import annotations

import json

import pytest

from glm_jax.errors import UsageError
from glm_jax.tasks import find_task, has_split, read_examples
from glm_jax.tasks.few_shot import few_shot_task


def write(path, *rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def boolq(text: str) -> dict:
    return {"passage": text, "question": "is it", "label": True, "idx": 0}


def test_few_shot_splits(tmp_path):
    for name in ("train", "dev32", "val", "unlabeled"):
        write(tmp_path / f"{name}.jsonl", boolq(name))
    task = few_shot_task(find_task("boolq"))
    files = {"train": "train", "dev": "dev32", "test": "val", "unlabeled": "unlabeled"}
    for split, file in files.items():
        (example,) = read_examples(task, str(tmp_path), split)
        assert (example.text_a, example.guid, example.label) == (file, f"{split}-0", "true")
    (tmp_path / "dev32.jsonl").unlink()
    assert not has_split(task, str(tmp_path), "dev") and has_split(task, str(tmp_path), "test")
    with pytest.raises(UsageError, match="task sst2 has no few-shot files"):
        few_shot_task(find_task("sst2"))


@pytest.mark.parametrize("idx", [0, 1])
def test_few_shot_record_has_a_dev_split_of_its_own(tmp_path, idx):
    passage = {"text": "Ann ran.", "entities": [{"start": 0, "end": 2}]}
    query = {"query": "@placeholder ran", "idx": 3, "answers": [{"text": "Ann"}]}
    write(tmp_path / "dev32.jsonl", {"idx": idx, "passage": passage, "qas": [query]})
    (example,) = read_examples(few_shot_task(find_task("record")), str(tmp_path), "dev")
    assert example.guid == f"dev-p{idx}-q3" and example.meta["candidates"] == ["Ann"]


def cmrc(*answers: str) -> dict:
    found = [{"text": text, "answer_start": 0} for text in answers]
    question = {"id": "Q1", "question": "为什么？", "answers": found}
    return {"data": [{"paragraphs": [{"context": "因为下雨。", "qas": [question]}]}]}


def test_cmrc_has_an_example_per_distinct_answer_in_training(tmp_path):
    for split in ("train", "dev"):
        write(tmp_path / f"{split}.json", cmrc("因为", "下雨", "因为"))
    train = read_examples("cmrc", str(tmp_path), "train")
    assert [(e.guid, e.meta["answer"]["text"]) for e in train] == [
        ("Q1", "因为"),
        ("Q1-1", "下雨"),
    ]
    (dev,) = read_examples("cmrc", str(tmp_path), "dev")
    assert dev.meta["answer"]["text"] == "因为" and len(dev.meta["answers"]) == 3
    (pattern,) = find_task("cmrc").questions(dev, 0)
    shown = [getattr(part, "text", part) for part in pattern.first]
    assert [shown[0], shown[1], shown[2], shown[4]] == [
        "问题：",
        "为什么？",
        "答案：",
        "因为下雨。",
    ]
    assert pattern.answer == "因为"
    write(tmp_path / "dev.json", cmrc())
    with pytest.raises(UsageError, match="question 'Q1' of cmrc has no answer"):
        read_examples("cmrc", str(tmp_path), "dev")
