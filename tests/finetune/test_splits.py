"""Few-shot files and few-shot subsets."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from glm_jax.errors import UsageError
from glm_jax.finetune.subset import draw_subset
from glm_jax.tasks import Example, find_task, has_split, metrics, read_examples
from glm_jax.tasks.few_shot import few_shot_task
from tests.finetune.rows import letters, letters_task


def write(folder, name, rows):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def rte_rows(count: int, first: int = 0):
    labels = ("entailment", "not_entailment")
    return [
        {"premise": f"p{n}", "hypothesis": f"h{n}", "label": labels[n % 2], "idx": n}
        for n in range(first, first + count)
    ]


def test_few_shot_splits_are_those_of_fewsuperglue(tmp_path):
    write(tmp_path, "train.jsonl", rte_rows(3))
    write(tmp_path, "dev32.jsonl", rte_rows(4, 10))
    write(tmp_path, "val.jsonl", rte_rows(5, 20))
    write(tmp_path, "unlabeled.jsonl", [{"premise": "p", "hypothesis": "h", "idx": 30}])
    task = few_shot_task(find_task("rte"))
    found = {
        split: [(e.idx, e.label) for e in read_examples(task, str(tmp_path), split)]
        for split in ("train", "dev", "test", "unlabeled")
    }
    assert [idx for idx, _ in found["train"]] == [0, 1, 2]
    assert [idx for idx, _ in found["dev"]] == [10, 11, 12, 13]
    assert [idx for idx, _ in found["test"]] == [20, 21, 22, 23, 24]
    assert all(label for split in ("train", "dev", "test") for _, label in found[split])
    # No label counts as the first one where rows are encoded.
    (unlabelled,) = read_examples(task, str(tmp_path), "unlabeled")
    assert unlabelled.label is None and task.label_index(unlabelled) == 0
    test = read_examples(task, str(tmp_path), "test")
    assert metrics(task, [0, 1, 0, 1, 1], test) == {"accuracy": 80.0}
    # Without the setting, dev is SuperGLUE's.
    assert len(read_examples("rte", str(tmp_path), "dev")) == 5


def test_records_few_shot_dev_split_asks_questions(tmp_path):
    passage = {"text": "Ann met Bob", "entities": [{"start": 0, "end": 2}, {"start": 8, "end": 10}]}
    question = {"query": "@placeholder left", "idx": 0, "answers": [{"text": "Bob"}]}
    write(tmp_path, "dev32.jsonl", [{"passage": passage, "qas": [question], "idx": 7}])
    task = few_shot_task(find_task("record"))
    assert has_split(task, str(tmp_path), "dev") and not has_split(task, str(tmp_path), "test")
    (example,) = read_examples(task, str(tmp_path), "dev")
    assert example.meta["candidates"] == ["Ann", "Bob"] and example.meta["answers"] == ["Bob"]


def test_other_tasks_have_no_few_shot_files():
    with pytest.raises(UsageError, match="task mnli has no few-shot files"):
        few_shot_task(find_task("mnli"))


def test_a_subset_has_as_many_of_every_label():
    examples = [
        Example(e.guid, e.text_a, None, "bad" if n < 30 else "good", n, meta=e.meta)
        for n, e in enumerate(letters([1] * 40))
    ]
    task = letters_task()
    drawn = draw_subset(task, examples, 16, 5)
    assert Counter(e.label for e in drawn) == {"bad": 8, "good": 8}
    assert [e.idx for e in drawn] == sorted({e.idx for e in drawn})
    assert drawn == draw_subset(task, examples, 16, 5) != draw_subset(task, examples, 16, 6)
    # "good" has only 10, so that the rest are of the other label.
    assert Counter(e.label for e in draw_subset(task, examples, 30, 5)) == {"bad": 20, "good": 10}
    assert {c for c in Counter(e.label for e in draw_subset(task, examples, 7, 5)).values()} == {
        3,
        4,
    }
    assert draw_subset(task, examples, 99, 5) == examples


def test_a_subset_of_a_task_without_classes_is_drawn_from_all():
    examples = [Example(f"train-{n}", "t", "q", "0", n) for n in range(20)]
    drawn = draw_subset(find_task("record"), examples, 6, 1)
    assert len({e.idx for e in drawn}) == 6 and [e.idx for e in drawn] != list(range(6))
