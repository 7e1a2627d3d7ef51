"""Answers to prompts: their files, rows and scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glm_jax.errors import UsageError
from glm_jax.seq2seq.answer_metrics import answer_scores, bleu_of_characters, rouge_of_words
from glm_jax.seq2seq.config import GenerationConfig, Seq2SeqConfig
from glm_jax.seq2seq.encode import encode_pair
from glm_jax.seq2seq.judge import judge_outputs
from glm_jax.seq2seq.outputs import Output
from glm_jax.seq2seq.read import prompts_of, read_split
from glm_jax.seq2seq.rows import RowLayout
from tests.tokenizer.chatglm_stand_in import stand_in_tokenizer


def settings_of(
    folder: Path, lines: Sequence[object], name: str = "train.json", **options: Any
) -> Seq2SeqConfig:
    (folder / name).write_text("\n".join(json.dumps(line) for line in lines))
    fields: dict[str, Any] = {"source_length": 24, "target_length": 12} | options
    return Seq2SeqConfig(name="answers", data=str(folder), **fields)


def test_lines_without_prompt_or_answer_are_left_out(tmp_path):
    lines = [
        {"prompt": "a", "response": "b"},
        {"prompt": "", "response": "b"},
        {"prompt": "a", "response": ""},
        {"prompt": "c", "response": "d"},
    ]
    settings = settings_of(tmp_path, lines)
    examples = read_split(settings, "train", stand_in_tokenizer())
    assert [(one.text_a, one.text_b) for one in examples] == [("a", "b"), ("c", "d")]


def test_a_test_split_needs_no_answers(tmp_path):
    settings = settings_of(tmp_path, [{"prompt": "a"}], "test.jsonl")
    [example] = read_split(settings, "test", stand_in_tokenizer())
    assert example.text_b is None
    assert len(prompts_of(settings, [example], stand_in_tokenizer())) == 1


def test_history_makes_rounds_also_where_it_is_empty(tmp_path):
    lines = [
        {"prompt": "q", "response": "a", "h": []},
        {"prompt": "q", "response": "a", "h": [["x", "y"]]},
    ]
    settings = settings_of(tmp_path, lines, history_field="h", prompt_prefix="p ")
    texts = [example.text_a for example in read_split(settings, "train", stand_in_tokenizer())]
    assert texts[0] == "p [Round 0]\n问：q\n答："
    assert texts[1] == "p [Round 0]\n问：x\n答：y\n[Round 1]\n问：q\n答："


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"response": "b"}, "no field 'prompt'"),
        ({"prompt": "a"}, "no field 'response'"),
        ({"prompt": 1, "response": "b"}, "expected text in the field 'prompt', found 1"),
        ({"prompt": "a", "response": "b"}, "no field 'h'"),
        ({"prompt": "a", "response": "b", "h": [["x"]]}, "expected a list of pairs of texts"),
    ],
)
def test_lines_with_faults_are_named(tmp_path, line, message):
    settings = settings_of(tmp_path, [line], history_field="h")
    with pytest.raises(UsageError) as refused:
        read_split(settings, "train", stand_in_tokenizer())
    assert message in str(refused.value) and "line 1" in str(refused.value)
    missing = "val.jsonl or dev.jsonl or .* is missing, which task answers needs"
    with pytest.raises(UsageError, match=missing):
        read_split(settings, "dev", stand_in_tokenizer())


def test_long_prompts_and_answers_are_shortened(tmp_path):
    tokenizer = stand_in_tokenizer()
    settings = settings_of(tmp_path, [{"prompt": "ab " * 40, "response": "cd " * 40}])
    [example] = read_split(settings, "train", tokenizer)
    layout = RowLayout(tokenizer.special, 24, 12)
    row = encode_pair(settings.task, example, tokenizer, layout)
    special = tokenizer.special
    prompt, answer = tokenizer.encode("ab " * 40)[:23], tokenizer.encode("cd " * 40)[:10]
    ids = [*prompt, special["gMASK"], special["sop"], *answer, special["eop"]]
    assert row["tokens"].tolist() == ids and len(ids) == 36
    assert row["targets"].tolist()[:-1] == ids[1:]
    # [gMASK] learns sop, and each token of the answer the next one.
    assert np.flatnonzero(row["loss_mask"]).tolist() == list(range(23, 35))
    assert row["position_ids"][0].tolist() == [*range(24), *[23] * 12]
    assert row["position_ids"][1].tolist() == [*[0] * 24, *range(1, 13)]
    assert row["prefix_length"] == 24


def test_scores_of_known_texts():
    # By rouge_chinese 1.0.3 and nltk 3.9, with jieba's words.
    assert rouge_of_words(["今天", "天气"], ["今天", "很", "好"])["rouge-1"] == pytest.approx(0.4)
    assert rouge_of_words([], ["a"]) == {"rouge-1": 0.0, "rouge-2": 0.0, "rouge-l": 0.0}
    assert rouge_of_words(list("abcd"), list("acbd"))["rouge-l"] == pytest.approx(0.75)
    # Different n-grams count once.
    assert rouge_of_words(["a", "a"], ["a"])["rouge-1"] == pytest.approx(1.0)
    assert bleu_of_characters("天气很好", "天气很好") == pytest.approx(1.0)
    assert bleu_of_characters("", "天") == 0.0 == bleu_of_characters("a", "b")
    expected = (3 / 4 * 1 / 3 * (1 / 2) / 2 * (1 / 4) / 1) ** 0.25
    assert bleu_of_characters("天气xa", "天气ya") == pytest.approx(expected)
    assert bleu_of_characters("天气很好", "天气很好啊") == pytest.approx(np.exp(1 - 5 / 4))


def test_metrics_of_outputs(tmp_path):
    pytest.importorskip("jieba")
    tokenizer = stand_in_tokenizer()
    lines = [{"prompt": "a", "response": "你好，世界"}, {"prompt": "b", "response": "你好"}]
    settings = settings_of(tmp_path, lines)
    examples = read_split(settings, "train", tokenizer)
    outputs = [Output("0", ["你好,世界"], [[]]), Output("1", ["世界"], [[]])]
    found = judge_outputs(settings.task, examples, outputs, tokenizer)
    assert list(found) == ["bleu-4", "rouge-1", "rouge-2", "rouge-l"]
    # References are encoded and decoded, which makes the comma one of ASCII.
    assert found["rouge-l"].value == pytest.approx(50.0, abs=1e-3)
    assert set(answer_scores(["你好"], ["你好"])) == set(settings.task.metrics)


def test_drawing_and_searching_exclude_each_other():
    sampling = GenerationConfig(beams=1, temperature=0.95, top_p=0.7, top_k=50).sampling(9)
    assert (sampling.temperature, sampling.top_p, sampling.max_blank_length) == (0.95, 0.7, 9)
    with pytest.raises(UsageError, match=r"generation.temperature is 0.5, which draws"):
        GenerationConfig(temperature=0.5)
