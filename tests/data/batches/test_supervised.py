"""Supervised cloze examples: from lines to rows, epochs, and what is refused."""

import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_jax.data.batches.cloze_lines import ClozeExample, read_examples
from glm_jax.data.batches.supervised import SupervisedExamples, read_supervised
from glm_jax.data.blanks.build import build_blanks
from glm_jax.data.blanks.config import Objective
from glm_jax.errors import UsageError
from glm_jax.generate.prompt import make_prompt
from glm_jax.tokenizer import Tokenizer, load_tokenizer

SOP, EOP, MASK = 1006, 1007, 1003

WORDS = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("the", "capital", "of", "france", "is", "paris", ".", "and", "berlin", "germany"),
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    """Words are tokens; ENC 2, MASK 4, sop 15, eop 16, gMASK 17, sMASK 18, eos 0."""
    folder = tmp_path_factory.mktemp("vocabulary")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return load_tokenizer("bert", folder, task_mask=True)


@pytest.fixture
def write(tmp_path):
    def write(*records: object) -> str:
        path = tmp_path / "examples.jsonl"
        lines = [r if isinstance(r, str) else json.dumps(r) for r in records]
        path.write_text("\n".join(lines) + "\n")
        return str(path)

    return write


def made(examples: list[ClozeExample], length: int, seed: int = 0) -> SupervisedExamples:
    return SupervisedExamples(examples, sop=SOP, eop=EOP, sequence_length=length, seed=seed)


def test_a_row_is_the_prompt_and_its_answers(write, tokenizer):
    record = {"context": "The capital of [MASK] is [MASK].", "answers": ["France", "Paris and"]}
    source = read_supervised(write(record), tokenizer, sequence_length=18, seed=0)
    row = {name: values[0].tolist() for name, values in source.rows(np.array([5])).items()}
    #                     CLS the capital of MASK is MASK . eos sop france sop paris and, padding
    assert row["tokens"] == [2, 5, 6, 7, 4, 9, 4, 11, 0, 15, 8, 15, 10, 12, 0, 0, 0, 0]
    assert row["targets"] == [2, 5, 6, 7, 4, 9, 4, 11, 0, 8, 16, 10, 12, 16, 0, 0, 0, 0]
    assert row["loss_mask"] == [0.0] * 9 + [1.0] * 5 + [0.0] * 4
    assert row["position_ids"] == [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 4, 4, 6, 6, 6, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 1, 2, 3, 0, 0, 0, 0],
    ]
    assert row["prefix_length"] == 9
    assert row["objective"] == int(Objective.OTHER) == 3


@st.composite
def examples(draw):
    """Contexts with masks and answers that may be anything but empty."""
    answer = st.lists(st.integers(10, 900), min_size=1, max_size=5)
    gaps = draw(st.lists(st.lists(st.integers(10, 900), max_size=4), min_size=2, max_size=5))
    part_a, masks = list(gaps[0]), []
    for gap in gaps[1:]:
        masks.append(len(part_a))
        part_a += [MASK, *gap]
    return ClozeExample(part_a, masks, [draw(answer) for _ in masks])


@settings(deadline=None, max_examples=25)
@given(chosen=st.lists(examples(), min_size=1, max_size=4), seed=st.integers(-5, 2**70))
def test_rows_are_the_blanks_of_the_filled_texts(chosen, seed):
    """A row is what the answers, put into the context, would be as blanks in text order."""
    length = 60
    batch = made(chosen, length, seed).rows(np.arange(len(chosen)))
    for row in range(len(chosen)):
        found = {name: values[row] for name, values in batch.items() if name != "objective"}
        assert any(
            all(np.array_equal(found[name], expected[name]) for name in expected)
            for expected in map(lambda example: as_blanks(example, length), chosen)
        )


def as_blanks(example: ClozeExample, length: int) -> dict[str, np.ndarray]:
    text, spans, done = [], [], 0
    for mask, answer in zip(example.masks, example.answers, strict=True):
        text += example.part_a[done:mask]
        spans.append([len(text), len(text) + len(answer)])
        text += answer
        done = mask + 1
    text += example.part_a[done:]
    blanks = build_blanks(
        [text], [len(text)], [spans], [len(spans)],
        mask_id=MASK, sop=SOP, eop=EOP, sequence_length=length,
    )  # fmt: skip
    return {name: values.numpy()[0] for name, values in blanks.items()}


@settings(deadline=None, max_examples=30)
@given(number=st.integers(1, 50), epoch=st.integers(0, 2**40), seed=st.integers(0, 9))
def test_every_epoch_has_each_example_once(number, epoch, seed):
    source = made([ClozeExample([MASK], [0], [[10 + i]]) for i in range(number)], 8, seed)
    rows = source.rows(np.arange(epoch * number, (epoch + 1) * number))
    assert sorted(rows["tokens"][:, 2]) == [10 + i for i in range(number)]


def test_order_depends_on_seed_and_epoch_and_not_on_the_reader():
    cloze = [ClozeExample([MASK], [0], [[10 + i]]) for i in range(40)]

    def order(seed: int, example: np.ndarray) -> list[int]:
        return made(cloze, 8, seed).rows(example)["tokens"][:, 2].tolist()

    first = order(0, np.arange(120))
    assert len({tuple(first[:40]), tuple(first[40:80]), tuple(order(1, np.arange(40)))}) == 3
    assert order(0, np.arange(119, -1, -7)) == first[::-1][::7]


def test_answers_begin_with_a_space_unless_the_mask_stands_behind_text(tmp_path, tiny_store, write):
    own = load_tokenizer(tiny_store)
    path = write(
        {"context": "It is [MASK].", "answer": "here"},
        {"context": '"[MASK]" was said', "answer": "here"},
        {"context": "[sMASK] End", "answer": "here"},
        {"context": "It is\n[gMASK]", "answer": "\nhere [MASK]"},
    )
    found = list(read_examples(path, own, 64))
    assert [own.decode(example.answers[0]) for example in found] == [
        " here", "here", " here", "\nhere [MASK]",
    ]  # fmt: skip
    special = own.special
    # A text that ends in a generation mask goes on, so no eos ends it.
    assert [example.part_a[-1] == special["eos"] for example in found] == [True, True, True, False]
    assert found[3].part_a[-1] == special["gMASK"]
    assert special["MASK"] not in found[3].answers[0]


@pytest.mark.parametrize(
    ("context", "length", "kept"),
    [
        ("the capital of [MASK] . and berlin and", 12, "the capital of [MASK] . and berlin and"),
        ("the capital of [MASK] . and berlin and", 11, "the capital of [MASK] . and berlin"),
        ("the capital of [MASK] . and berlin and", 10, "the capital of [MASK] . and"),
        ("the capital of [MASK] . and berlin and", 9, "capital of [MASK] . and"),
        ("the capital of [MASK] . and berlin and", 6, "of [MASK]"),
        ("the capital of [MASK] . and berlin and", 5, "[MASK]"),
        ("the [MASK] . and berlin and paris", 9, "the [MASK] . and berlin"),
        ("the capital of france is [MASK]", 7, "france is [MASK]"),
        ("[MASK] . and berlin and paris", 7, "[MASK] . and"),
    ],
)
def test_long_contexts_lose_their_longer_end_first(context, length, kept, tokenizer, write):
    (example,) = read_examples(write({"context": context, "answer": "paris"}), tokenizer, length)
    ids = [2, *tokenizer.encode(kept), 0]
    assert example.part_a == ids
    assert [ids[place] for place in example.masks] == [4]
    made([example], length).rows(np.arange(1))


@pytest.mark.parametrize(
    "context", ["is [MASK] .", "[sMASK] of [MASK]", "the [gMASK]", "[gMASK] ."]
)
def test_part_a_is_what_generation_prompts_with(context, tokenizer, write):
    answers = ["paris"] * context.count("MASK]")
    (example,) = read_examples(write({"context": context, "answers": answers}), tokenizer, 32)
    prompt = make_prompt(tokenizer.encode(context), tokenizer.special)
    assert (example.part_a, example.masks) == (prompt.ids, prompt.masks)


def test_compressed_files_folders_and_empty_lines(tmp_path, tokenizer):
    line = json.dumps({"context": "[MASK] is the capital", "answer": "paris"})
    (tmp_path / "a.jsonl").write_text(f"\n{line}\n\n{line}")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(f"{line}\r\n".encode()))
    assert len(list(read_examples(str(tmp_path), tokenizer, 32))) == 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 of {path} is not JSON"),
        ("[1]", "line 2 of {path} is no JSON object"),
        ({"text": "a [MASK]", "answer": "b"}, "no text under the key 'context'"),
        ({"context": "the [MASK]", "answer": 3}, "no text under the key 'answer'"),
        ({"context": "the [MASK]", "answers": "of"}, "no text under the key 'answer'"),
        ({"context": "the capital", "answer": "of"}, "none of the tokenizer's masks ([MASK], [g"),
        ({"context": "the [MASK]", "answers": ["of", "is"]}, "has 1 masks in its context, but 2"),
        ({"context": "[MASK] [sMASK]", "answer": "of"}, "has 2 masks in its context, but 1"),
        ({"context": "the [MASK]", "answer": " "}, "has an empty answer"),
        ({"context": "the [MASK]", "answer": "of " * 20}, "take 8 positions more than"),
        ({"context": "[MASK]" + " is" * 15 + "[MASK]", "answers": ["of", "of"]}, "too long"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(line, message, write, tokenizer):
    good = {"context": "the [MASK]", "answer": "of"}
    path = write(good, line, good)
    with pytest.raises(UsageError) as caught:
        list(read_examples(path, tokenizer, 16))
    assert message.replace("{path}", path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_examples_and_broken_files_are_refused(tmp_path, tokenizer, write):
    with pytest.raises(UsageError, match="no supervised examples"):
        read_supervised(write("", " "), tokenizer, sequence_length=16, seed=0)
    with pytest.raises(UsageError, match="matches no file"):
        read_supervised(str(tmp_path / "none"), tokenizer, sequence_length=16, seed=0)
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(b"x" * 5000)[:20])
    with pytest.raises(UsageError, match=r"c\.jsonl\.gz can't be read"):
        read_supervised(str(tmp_path / "c.jsonl.gz"), tokenizer, sequence_length=16, seed=0)


def test_tasks_are_laid_out_as_the_original_records_them(shared, write):
    """Contexts that need no cut; the original pads Part A, we pad at the end."""
    recorded = json.loads((shared / "goldens/f_finetune/seq2seq.json").read_text())
    (task,) = (
        task
        for task in recorded
        if (task["task"], task["tokenizer"], task["split"], task["args"])
        == ("customization", "gpt2", "train", "")
    )
    vocabularies = shared / "vocabs"
    files = [vocabularies / "gpt2-vocab.json", vocabularies / "gpt2-merges.txt"]
    gpt2 = load_tokenizer("gpt2", *files, task_mask=True)
    compared = 0
    for example, sample in zip(task["result"]["examples"], task["result"]["samples"], strict=True):
        path = write({"context": example["text_a"] + " [sMASK]", "answer": example["text_b"]})
        (cloze,) = read_examples(path, gpt2, 200)
        if len(cloze.part_a) > 48 or len(cloze.answers[0]) > 15:
            continue
        compared += 1
        rows = SupervisedExamples(
            [cloze],
            sop=gpt2.special["sop"], eop=gpt2.special["eop"], sequence_length=200, seed=0,
        ).rows(np.arange(1))  # fmt: skip
        prefix, stop = len(cloze.part_a), len(cloze.part_a) + 1 + len(cloze.answers[0])
        part_a, part_b = slice(0, prefix), slice(48, 48 + stop - prefix)
        for name, theirs in (("tokens", "text"), ("position_ids", "position_id")):
            expected, found = np.array(sample[theirs]), rows[name][0]
            assert np.array_equal(found[..., part_a], expected[..., part_a])
            assert np.array_equal(found[..., prefix:stop], expected[..., part_b])
        assert np.array_equal(rows["targets"][0, prefix:stop], sample["target"][part_b])
        assert np.array_equal(rows["loss_mask"][0, prefix:stop], sample["loss_mask"][part_b])
    assert compared >= 1
