"""Part A and Part B of given spans, against recorded numbers and by reconstruction."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_jax.data.blanks import build_blanks

SETTINGS = [
    "bert",
    "bert_noshuffle",
    "bert_ratio",
    "bert_block_mask",
    "bert_single_span",
    "sentence",
    "sentence_task_mask",
    "gpt_blank",
    "gpt_infill",
    "gpt_mixed_task_mask",
    "mixed_10b",
    "short_seq",
    "single_span_bert_prob_0",
]
MASKS = {"bert": "MASK", "gap_sentence": "sMASK", "generation": "gMASK"}


def recorded_cases(shared, setting):
    path = shared / "goldens" / "d_blocks" / "examples" / f"{setting}.json"
    recorded = json.loads(path.read_text())
    return recorded["settings"], recorded["cases"]


def block_masked_tokens(row):
    """The recorded dBLOCK positions, in the sequence, as places in the text."""
    masked = np.zeros(len(row["sample_tokens"]), bool)
    place = row["sep"]
    for start, end in row["spans_in_block_order"]:
        for offset in range(end - start):
            masked[start + offset] = place + 1 + offset in row["dblock_positions_in_targets_part"]
        place += end - start + 1
    return masked


@pytest.mark.parametrize("setting", SETTINGS)
def test_recorded_rows(shared, special, setting):
    options, cases = recorded_cases(shared, setting)
    rows = [row for case in cases for row in case["built"]]
    assert rows or setting == "gpt_infill"
    for row in rows:
        mask = MASKS[row["task"]] if options.get("task_mask") else "MASK"
        spans = row["spans_in_block_order"]
        built = build_blanks(
            [row["sample_tokens"]],
            [len(row["sample_tokens"])],
            [spans],
            [len(spans)],
            mask_id=special[mask],
            sop=special["sop"],
            eop=special["eop"],
            sequence_length=len(row["tokens"]),
            block_masked=block_masked_tokens(row)[None],
            block_mask_id=special["dBLOCK"],
        )
        for name in ("tokens", "targets", "loss_mask", "position_ids"):
            np.testing.assert_array_equal(built[name][0], row[name], err_msg=name)
        assert built["prefix_length"][0] == row["sep"]


@pytest.mark.parametrize("setting", SETTINGS)
def test_recorded_batches(shared, special, setting):
    """Samples of different lengths and kinds in one batch, the unidirectional ones among them."""
    options, cases = recorded_cases(shared, setting)
    for case in cases:
        samples, batch = case["split"] or case["input"], case["batch"]
        rows = list(case["built"])  # in the order of the samples, unidirectional ones left out
        width = max(len(sample["text"]) for sample in samples)
        text = np.zeros((len(samples), width), np.int32)
        learned, dblock = np.zeros_like(text), np.zeros(text.shape, bool)
        spans = np.zeros((len(samples), width, 2), np.int32)
        lengths, num_spans, tail, mask_ids = [], [], [], []
        for i, (sample, sep) in enumerate(zip(samples, batch["attention_mask"], strict=True)):
            length = len(sample["text"])
            text[i, :length], learned[i, :length] = sample["text"], sample["loss_mask"]
            has_row = bool(rows) and rows[0]["sample_tokens"] == sample["text"]
            row = rows.pop(0) if has_row else None
            chosen = row["spans_in_block_order"] if row else [[sep - 1, length]]
            task = row["task"] if row else "generation"
            if row:
                dblock[i, :length] = block_masked_tokens(row)
            spans[i, : len(chosen)] = chosen
            lengths.append(length)
            num_spans.append(len(chosen))
            tail.append(row is None)
            mask_ids.append(special[MASKS[task] if options.get("task_mask") else "MASK"])
        assert not rows
        built = build_blanks(
            text,
            lengths,
            spans,
            num_spans,
            mask_id=mask_ids,
            sop=special["sop"],
            eop=special["eop"],
            sequence_length=len(batch["text"][0]),
            unidirectional=tail,
            text_loss_mask=learned,
            block_masked=dblock,
            block_mask_id=special["dBLOCK"],
        )
        np.testing.assert_array_equal(built["tokens"], batch["text"])
        np.testing.assert_array_equal(built["targets"], batch["target"])
        np.testing.assert_array_equal(built["loss_mask"], batch["loss_mask"])
        np.testing.assert_array_equal(built["position_ids"], batch["position_id"])
        np.testing.assert_array_equal(built["prefix_length"], batch["attention_mask"])


def test_tail_does_not_learn_what_the_text_excludes(special):
    text = [[special["ENC"], 5, 6, special["eos"], special["ENC"], 7, 8]]
    built = build_blanks(
        text, [7], [[[2, 7]]], [1],
        mask_id=special["gMASK"], sop=special["sop"], eop=special["eop"], sequence_length=8,
        unidirectional=[True], text_loss_mask=np.not_equal(text, special["ENC"]),
    )  # fmt: skip
    assert built["targets"][0].numpy().tolist()[3:] == text[0][2:]
    assert built["tokens"][0].numpy().tolist()[3:] == [special["sop"], *text[0][2:-1]]
    assert built["loss_mask"][0].numpy().tolist() == [0, 0, 0, 1, 1, 0, 1, 1]


@st.composite
def blanked_texts(draw):
    """A text and non-overlapping spans of it (touching ones too) in any order."""
    lengths = draw(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 5)), max_size=6))
    spans, place = [], 1
    for gap, length in lengths:
        spans.append((place + gap, place + gap + length))
        place += gap + length
    size = place + draw(st.integers(0, 5))
    return size, draw(st.permutations(spans))


@settings(deadline=None, max_examples=60)
@given(st.lists(blanked_texts(), min_size=1, max_size=4))
def test_part_b_with_its_positions_reconstructs_the_text(special, texts):
    width, most = max(size for size, _ in texts), max(len(spans) for _, spans in texts)
    text = 10 + np.arange(len(texts) * width, dtype=np.int32).reshape(len(texts), width)
    spans = np.zeros((len(texts), most, 2), np.int32)
    for i, (_, chosen) in enumerate(texts):
        spans[i, : len(chosen)] = np.array(chosen).reshape(-1, 2)
    built = build_blanks(
        text,
        [size for size, _ in texts],
        spans,
        [len(chosen) for _, chosen in texts],
        mask_id=special["MASK"],
        sop=special["sop"],
        eop=special["eop"],
        sequence_length=width + 2 * most + 3,
    )
    built = {name: values.numpy() for name, values in built.items()}
    for i, (size, chosen) in enumerate(texts):
        part_a = built["tokens"][i, : built["prefix_length"][i]]
        generated: dict[int, list[int]] = {}
        for place in np.flatnonzero(built["loss_mask"][i]):
            generated.setdefault(built["position_ids"][i, 0, place], []).append(
                int(built["targets"][i, place])
            )
        restored: list[int] = []
        for place, token in enumerate(part_a):
            if token == special["MASK"]:
                assert generated[place].pop() == special["eop"]
                restored += generated.pop(place)
            else:
                restored.append(int(token))
        assert restored == text[i, :size].tolist()
        assert generated == {}
        end = size + 2 * len(chosen)
        for name in ("tokens", "targets", "loss_mask"):
            assert not built[name][i, end:].any()
        assert not built["position_ids"][i, :, end:].any()
