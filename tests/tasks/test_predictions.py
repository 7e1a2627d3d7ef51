"""Prediction files of every task, as the benchmarks take them, against lines written by hand."""

from __future__ import annotations

import json

import pytest

from glm_jax.tasks import TASKS, Example, find_task
from glm_jax.tasks.predictions import prediction_lines, submission


def examples(count: int, *, idx=None) -> list[Example]:
    return [
        Example(f"test-{number}", "", idx=number if idx is None else idx[number])
        for number in range(count)
    ]


# Task; predictions; the labels that its file has.
LABELS = [
    ("rte", [1, 0], ["not_entailment", "entailment"]),
    ("ax-b", [0, 1], ["entailment", "not_entailment"]),
    ("ax-g", [0, 1], ["entailment", "not_entailment"]),
    ("cb", [2, 1], ["neutral", "contradiction"]),
    ("wic", [1, 0], ["true", "false"]),
    ("boolq", [0, 1], ["false", "true"]),
    ("copa", [1, 0], ["1", "0"]),
    ("wsc", [0, 1], ["False", "True"]),
    ("mnli", [2, 0], ["neutral", "contradiction"]),
    ("mnli-mm", [1, 0], ["entailment", "contradiction"]),
    ("qnli", [1, 0], ["not_entailment", "entailment"]),
    ("sst2", [1, 0], ["1", "0"]),
    ("cola", [1, 0], ["1", "0"]),
    ("mrpc", [1, 0], ["1", "0"]),
    ("qqp", [1, 0], ["1", "0"]),
    ("agnews", [3, 0], ["4", "1"]),
    ("xstance", [1, 0], ["AGAINST", "FAVOR"]),
    ("race", [3, 0], ["D", "A"]),
    ("afqmc", [1, 0], ["1", "0"]),
    ("tnews", [14, 5], ["116", "106"]),
    ("cluewsc", [1, 0], ["true", "false"]),
]


@pytest.mark.parametrize(("task", "predictions", "labels"), LABELS, ids=[t for t, *_ in LABELS])
def test_lines_have_index_and_label(task, predictions, labels):
    lines = prediction_lines(find_task(task), predictions, examples(2, idx=[7, 9]))
    expected = [{"idx": 7, "label": labels[0]}, {"idx": 9, "label": labels[1]}]
    assert [json.loads(line) for line in lines] == expected


def test_tasks_without_an_index_have_the_number_of_the_row():
    lines = prediction_lines(find_task("sst2"), [1, 0, 1], examples(3, idx=[-1, -1, -1]))
    assert lines == [
        '{"idx": 0, "label": "1"}',
        '{"idx": 1, "label": "0"}',
        '{"idx": 2, "label": "1"}',
    ]


def test_clue_is_in_the_order_of_its_indices():
    lines = prediction_lines(find_task("cluewsc"), [0, 1, 1], examples(3, idx=[5, 1, 3]))
    assert [json.loads(line)["idx"] for line in lines] == [1, 3, 5]
    assert [json.loads(line)["label"] for line in lines] == ["true", "true", "false"]


def test_record_has_the_text_of_the_entity():
    meta = {"candidates": ["Ann", "Überlingen"]}
    example = Example("test-p0-q4", "", "", None, 4, 2, meta)
    assert prediction_lines(find_task("record"), [1], [example]) == [
        '{"idx": 4, "label": "Überlingen"}'
    ]


def test_multirc_has_answers_below_questions_below_passages():
    def answer(passage, question, number):
        meta = {"passage_idx": passage, "question_idx": question, "answer_idx": number}
        return Example("", "", "", None, [passage, question, number], meta=meta)

    rows = [answer(0, 0, 0), answer(0, 0, 1), answer(0, 1, 2), answer(3, 8, 9)]
    lines = prediction_lines(find_task("multirc"), [1, 0, 1, 0], rows)
    assert [json.loads(line) for line in lines] == [
        {
            "idx": 0,
            "passage": {
                "questions": [
                    {"idx": 0, "answers": [{"idx": 0, "label": 1}, {"idx": 1, "label": 0}]},
                    {"idx": 1, "answers": [{"idx": 2, "label": 1}]},
                ]
            },
        },
        {"idx": 3, "passage": {"questions": [{"idx": 8, "answers": [{"idx": 9, "label": 0}]}]}},
    ]


def test_multiple_choice_has_the_number_of_the_line_as_text_and_the_index_of_the_choice():
    rows = [Example("0", "", None, 0, "0", 3), Example("1", "", None, 1, "1", 2)]
    assert prediction_lines(find_task("multichoice"), [2, 1], rows) == [
        '{"idx": "0", "label": 2}',
        '{"idx": "1", "label": 1}',
    ]


@pytest.mark.parametrize(
    ("task", "predictions", "file"),
    [
        ("cola", [1, 0], ("CoLA.tsv", "index\tprediction\n0\t1\n1\t0\n")),
        ("mnli", [2, 1], ("MNLI-m.tsv", "index\tprediction\n0\tneutral\n1\tentailment\n")),
        (
            *("rte", [1, 0]),
            (
                "RTE.jsonl",
                '{"idx": 0, "label": "not_entailment"}\n{"idx": 1, "label": "entailment"}\n',
            ),
        ),
        (
            *("tnews", [5, 0]),
            ("tnews_predict.json", '{"id": 0, "label": "106"}\n{"id": 1, "label": "100"}\n'),
        ),
        ("agnews", [0, 0], None),
    ],
)
def test_the_file_that_the_benchmark_takes(task, predictions, file):
    assert submission(find_task(task), predictions, examples(2)) == file


def test_every_task_of_a_benchmark_has_a_file_of_its_own():
    files = {name: task.submission for name, task in TASKS.items() if task.submission}
    superglue = ("BoolQ", "CB", "COPA", "MultiRC", "ReCoRD", "RTE", "WiC", "WSC", "AX-b", "AX-g")
    glue = ("CoLA", "SST-2", "MRPC", "QQP", "MNLI-m", "MNLI-mm", "QNLI")
    assert set(files.values()) == {
        *(f"{name}.jsonl" for name in superglue),
        *(f"{name}.tsv" for name in glue),
        *(f"{name}_predict.json" for name in ("afqmc", "tnews", "cluewsc")),
    }
    assert len(files) == len(set(files.values()))
