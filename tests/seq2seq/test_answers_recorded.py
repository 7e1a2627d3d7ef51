"""Rows and prompts recorded from the published tuning program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from glm_jax.seq2seq.config import Seq2SeqConfig
from glm_jax.seq2seq.encode import encode_pair, reference_text
from glm_jax.seq2seq.read import prompts_of, read_split
from glm_jax.seq2seq.rows import RowLayout
from glm_jax.tokenizer import Tokenizer, load_tokenizer

CASES = range(5)


@pytest.fixture(scope="module")
def golden(shared: Path) -> list[dict[str, Any]]:
    recorded = json.loads((shared / "goldens/i_chatglm/tokenizer_real.json").read_text())
    return recorded["ptuning_examples"]


@pytest.fixture(scope="module")
def tokenizer(shared: Path) -> Tokenizer:
    return load_tokenizer("chatglm", shared / "vocabs" / "ice_text.model")


def settings_of(case: dict[str, Any], folder: Path) -> Seq2SeqConfig:
    """The configuration of a case, whose examples are written into a folder."""
    columns = case["examples"]
    names = {"prompt": "frage", "response": "antwort", "history": "davor"}
    lines = [
        json.dumps({names[name]: values[number] for name, values in columns.items()})
        for number in range(len(columns["prompt"]))
    ]
    for split in ("train", "val"):
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    return Seq2SeqConfig(
        name="answers",
        data=str(folder),
        source_length=case["max_source_length"],
        target_length=case["max_target_length"],
        prompt_field="frage",
        answer_field="antwort",
        history_field="davor" if case["history_column"] else "",
        prompt_prefix=case["source_prefix"],
    )


@pytest.mark.parametrize("number", CASES)
def test_rows_to_train_on(golden, tokenizer, tmp_path, number):
    case = golden[number]
    settings = settings_of(case, tmp_path)
    layout = RowLayout(tokenizer.special, settings.source_length, settings.target_length)
    examples = read_split(settings, "train", tokenizer)
    train = case["train"]
    pad = tokenizer.special["pad"]
    for example, ids, labels in zip(examples, train["input_ids"], train["labels"], strict=True):
        row = encode_pair(settings.task, example, tokenizer, layout)
        assert row["tokens"].tolist() == ids
        if not case["ignore_pad_token_for_loss"]:
            # Ours never learns padding.
            labels = [-100 if label == pad else label for label in labels]
        ours = [
            int(target) if learnt else -100
            for target, learnt in zip(row["targets"], row["loss_mask"], strict=True)
        ]
        assert ours == [*labels[1:], -100]
        assert row["prefix_length"] == ids.index(tokenizer.special["sop"])


@pytest.mark.parametrize("number", CASES)
def test_prompts_to_write_to(golden, tokenizer, tmp_path, number):
    case = golden[number]
    settings = settings_of(case, tmp_path)
    examples = read_split(settings, "dev", tokenizer)
    prompts = prompts_of(settings, examples, tokenizer)
    special = tokenizer.special
    recorded = case["eval"]["input_ids"]
    for example, padded in zip(examples, recorded, strict=True):
        prompt = prompts[str(example.guid)]
        ids = [*prompt.ids, special["sop"], *prompt.written]
        assert [*[special["pad"]] * (len(padded) - len(ids)), *ids] == padded
    references = [reference_text(settings.task, example, tokenizer) for example in examples]
    labels = [
        [id for id in row if id not in (-100, special["pad"])] for row in case["eval"]["labels"]
    ]
    assert references == [tokenizer.decode(ids) for ids in labels]
