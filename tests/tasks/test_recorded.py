"""Every example and encoded row of every task is the original's."""

from __future__ import annotations

import json

import pytest

from glm_jax.errors import UsageError
from glm_jax.tasks import (
    Example,
    encode_example,
    encode_multiple_choice,
    encode_priming_text,
    encode_shared_context,
    find_task,
    metrics,
    read_examples,
    read_multiple_choice,
)
from glm_jax.tasks.metric_functions import (
    accuracy,
    f1_macro,
    f1_of,
    normalize_answer,
    questions_right,
)
from glm_jax.tasks.sequence import collate_choices
from tests.tasks import recorded

# What the original can't encode and we can: the text of one-text tasks, and CLUEWSC's second one.
ORIGINAL_FAILS = "no attribute 'strip'"
# How each recorded split is read.
SPLITS = {
    "train": ("train", {}),
    "dev": ("dev", {}),
    "dev_for_train": ("dev", {"for_loss": True}),
    "test": ("test", {}),
    "train_cloze_eval_False": ("train", {"cloze": False}),
}


def pytest_generate_tests(metafunc):
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", recorded.task_names() or ["none"])


@pytest.fixture
def golden(shared, name) -> dict:
    return dict(recorded.recorded_task(name))


def fields(example: Example) -> dict:
    """As JSON has them."""
    return json.loads(json.dumps({key: getattr(example, key) for key in vars(example)}))


def test_examples(golden, name):
    folder = str(recorded.FOLDER / golden["data_dir"])
    for split, expected in golden["examples"].items():
        if not isinstance(expected, list) or not expected:
            continue  # the same as dev, or not there
        source, settings = SPLITS[split]
        cloze = {"cloze": False} if name == "wsc1" else {}
        found = [fields(e) for e in read_examples(name, folder, source, **settings, **cloze)]
        for example in expected:
            assert {k: v for k, v in example.items() if k != "logits"} in found


def test_rows(golden, name):
    folder = str(recorded.FOLDER / golden["data_dir"])
    for entry in golden["encoded"]:
        mode, arguments = entry["mode"], entry["args"].split()
        cloze = "NOCLOZE" not in mode
        examples = read_examples(name, folder, entry["split"], cloze=cloze)
        examples.sort(key=lambda example: example.num_choices)
        order, guids = entry["result"].get("order"), [example.guid for example in examples]
        # The order of a set of answers is not defined in the original.
        assert (
            order is None or guids == order or (name == "record" and sorted(guids) == sorted(order))
        )
        # An ensemble starts with all examples under its first pattern.
        sources = examples * find_task(name).num_patterns if "ensemble" in mode else examples
        for number, expected in enumerate(entry["result"]["samples"]):
            same_guid = [e for e in examples if e.guid == expected.get("uid")]
            pattern = {"pattern": number // len(examples)} if "ensemble" in mode else {}
            found = []
            for example in same_guid or [sources[number]]:
                found.append(encoded(name, example, entry, arguments, pattern, expected))
            assert not all(found), (entry["args"], entry["mode"], expected.get("uid"), found)


def encoded(name, example, entry, arguments, pattern, expected) -> list[str]:
    """Names of what differs from the recorded row."""
    tokenizer, length = recorded.tokenizer(entry["tokenizer"]), entry["seq_length"]
    settings = recorded.options(arguments) | pattern
    if "pattern_text" in entry["mode"]:
        ids = encode_priming_text(
            name, example, tokenizer, sequence_length=length, pattern=settings["pattern"]
        )
        return [] if ids == expected["text"] else ["text"]
    if "fast" in entry["mode"]:
        row = encode_shared_context(
            name, example, tokenizer, sequence_length=length, answer_length=16
        )
        return list(recorded.differences(row, expected))
    cloze = "NOCLOZE" not in entry["mode"]
    try:
        row = encode_example(
            name, example, tokenizer, sequence_length=length, cloze=cloze, **settings
        )
    except UsageError:
        return [] if "raises" in expected else ["raises"]
    if "raises" in expected:
        return [] if ORIGINAL_FAILS in expected["raises"] else ["does not raise"]
    return list(recorded.differences(row, expected))


def test_verbalizers(golden, name):
    task = find_task(name)
    for kind, patterns in golden.get("verbalizers", {}).items():
        encode = recorded.tokenizer(kind).encode_text
        for pattern, by_label in patterns.items():
            if task.verbalizers is None:
                assert not any(by_label.values())
                continue
            words = task.verbalizers(int(pattern))
            for label in task.labels:
                assert [[words[label], list(encode(words[label]))]] == by_label[str(label)]


@pytest.mark.parametrize("task", ["record", "wsc"])
def test_collated_choices(shared, task):
    golden = recorded.recorded_task(task)
    batch = golden["collated_dev_batch (big arrays: shape only)"]
    folder = str(recorded.FOLDER / golden["data_dir"])
    examples = {e.guid: e for e in read_examples(task, folder, "dev")}
    length = batch["text"][-1]
    rows = [
        encode_example(task, examples[guid], recorded.tokenizer("gpt2"), sequence_length=length)
        for guid in batch["uid"]
    ]
    collated = collate_choices(rows)
    assert list(collated["tokens"].shape) == batch["text"]
    assert list(collated["position_ids"].shape) == batch["position"]
    assert collated["choice_mask"].tolist() == batch["loss_mask"]
    assert collated["prefix_length"].tolist() == batch["mask"]
    assert collated["label"].tolist() == batch["label"]


def test_multiple_choice(shared):
    examples = read_multiple_choice(str(recorded.FOLDER / "raw/multichoice/a.jsonl"))
    for entry in recorded.recorded_task("multichoice"):
        for example, expected in zip(examples, entry["result"]["samples"], strict=True):
            settings = {
                "sequence_length": entry["seq_length"],
                "unidirectional": "--unidirectional" in entry["args"],
            }
            tokenizer = recorded.tokenizer(entry["tokenizer"])
            if "raises" in expected:
                with pytest.raises(UsageError, match="has no \\[gMASK\\]"):
                    encode_multiple_choice(example, tokenizer, **settings)
                continue
            row = encode_multiple_choice(example, tokenizer, **settings)
            assert not list(recorded.differences(row, expected))


def test_metrics(shared):
    golden = recorded.recorded_task("metrics")
    for case in golden["classification"]:
        predictions, labels = case["predictions"], case["labels"]
        assert accuracy(predictions, labels) == case["accuracy"]
        assert f1_macro(predictions, labels) == pytest.approx(case["f1_macro"], rel=1e-12)
        if "f1" in case:
            assert f1_of(1, predictions, labels) == pytest.approx(case["f1"], rel=1e-12)
    record = golden["record_qa"]
    examples = [
        Example("dev-0", "", None, "1", meta={"candidates": candidates, "answers": answers})
        for candidates, answers in zip(record["candidates"], record["answers"], strict=True)
    ]
    found = metrics("record", record["predictions"], examples)
    assert found == {"EM": record["EM"], "F1": record["F1"]}
    multirc = golden["multirc"]
    right = questions_right(multirc["predictions"], multirc["labels"], multirc["question_idx"])
    assert right == multirc["em"]
    answers = golden["normalize_answer"]
    assert [normalize_answer(text) for text in answers["in"]] == answers["out"]
