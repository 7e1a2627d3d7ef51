"""Every encoding, decoding, pair and batch recorded from the published tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from glm_jax.tokenizer import load_tokenizer
from glm_jax.tokenizer.chatglm import ChatGLMTokenizer
from glm_jax.tokenizer.chatglm_batch import pad_batch, truncated_prompt


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, Any]:
    return json.loads((shared / "goldens/i_chatglm/tokenizer_real.json").read_text())


@pytest.fixture(scope="module")
def tokenizer(shared: Path) -> ChatGLMTokenizer:
    made = load_tokenizer("chatglm", shared / "vocabs" / "ice_text.model")
    assert isinstance(made, ChatGLMTokenizer)
    return made


def test_ids_of_special_tokens_are_the_published(golden, tokenizer):
    about = golden["about"]
    special = tokenizer.special
    assert tokenizer.vocab_size == about["vocab_size"] == 130344
    assert tokenizer.padded_vocab_size == 130528
    assert special["sop"] == about["ids"]["bos_token_id"]
    assert special["eos"] == special["eop"] == about["ids"]["eos_token_id"]
    for name in ("pad", "unk", "mask", "gmask"):
        ours = {"mask": "MASK", "gmask": "gMASK"}.get(name, name)
        assert special[ours] == about["ids"][f"{name}_token_id"]
    for piece, id in about["piece_ids"].items():
        assert tokenizer.piece(id) == piece


def test_texts(golden, tokenizer):
    assert len(golden["texts"]) == 247
    for row in golden["texts"]:
        assert tokenizer.encode(row["text"]) == row["ids_no_special"], row["text"]
        assert tokenizer.encode_prompt(row["text"]) == row["ids"], row["text"]
        assert tokenizer.decode(row["ids"]) == row["decode"], row["text"]
        assert tokenizer.decode(row["ids_no_special"]) == row["decode_no_special"], row["text"]


def test_runs_of_spaces(golden, tokenizer):
    for row in golden["space_runs"]:
        assert tokenizer.encode(row["text"]) == row["ids_no_special"], row["text"]
        assert tokenizer.decode(row["ids_no_special"]) == row["decode_no_special"], row["text"]


def test_decodings_of_any_ids(golden, tokenizer):
    for row in golden["decode_ids"]:
        if "raises" in row:  # rows of the embedding without a piece: ours leaves them out
            assert all(id >= tokenizer.vocab_size for id in row["ids"][-1:])
            pieces = [id for id in row["ids"] if id < tokenizer.vocab_size]
            assert tokenizer.decode(row["ids"]) == tokenizer.decode(pieces)
            continue
        ids = row["ids"]
        assert tokenizer.decode(ids) == row["decode"], row
        assert tokenizer.decode(ids, skip_special=True) == row["decode_skip_special"], row
        assert tokenizer.decode(ids, clean_up=False) == row["decode_no_cleanup"], row


def test_pairs(golden, tokenizer):
    for row in golden["pairs"]:
        assert tokenizer.encode_prompt(row["text"], row["pair"]) == row["ids"], row
        assert tokenizer.decode(row["ids"]) == row["decode"], row


def test_batches(golden, tokenizer):
    for batch in golden["batches"]:
        options = batch["kwargs"]
        rows = batch.get("pad_of_ids")
        if rows is None:
            limit = options["max_length"] if options.get("truncation") else 1 << 30
            pairs = batch["pairs"] or [None] * len(batch["texts"])
            rows = [
                truncated_prompt(tokenizer, text, pair, limit)
                for text, pair in zip(batch["texts"], pairs, strict=True)
            ]
        if not options.get("padding"):
            assert rows == batch["input_ids"], options
            continue
        length = options.get("max_length") if options["padding"] == "max_length" else None
        padded = pad_batch(
            tokenizer, rows, length=length, multiple=options.get("pad_to_multiple_of", 1)
        )
        assert padded.tokens.tolist() == batch["input_ids"], options
        assert padded.position_ids.tolist() == batch["position_ids"], options
        hidden = [["".join(map(str, row)) for row in one] for one in padded.hidden.astype(int)]
        assert hidden == batch["attention_mask"], options


@pytest.mark.parametrize("num_image_tokens", [0, 20])
def test_stand_in_vocabulary_of_the_golden(shared: Path, num_image_tokens: int):
    """Its special pieces are found in text, which is what `encode_text` leaves to the pieces."""
    info = json.loads((shared / "goldens/i_chatglm/info.json").read_text())
    recorded = info[f"tokenizer_num_image_tokens_{num_image_tokens}"]
    tokenizer = load_tokenizer(
        "chatglm",
        shared / "goldens/i_chatglm/stand_in.model",
        num_image_tokens=num_image_tokens,
    )
    assert isinstance(tokenizer, ChatGLMTokenizer)
    assert tokenizer.vocab_size == recorded["vocab_size"]
    end = tokenizer.prompt_end
    for row in recorded["rows"]:
        assert tokenizer.encode_text(row["text"]) == row["encode_no_special"], row["text"]
        assert [*tokenizer.encode_text(row["text"]), *end] == row["encode"], row["text"]
        assert tokenizer.decode(row["encode"]) == row["decode"], row["text"]


def test_old_file_and_its_ids(shared: Path, tokenizer, golden):
    """The first release's file is the text pieces alone; its ids are 20,000 higher."""
    pb2 = pytest.importorskip("sentencepiece.sentencepiece_model_pb2")
    proto = pb2.ModelProto()
    proto.ParseFromString((shared / "vocabs" / "ice_text.model").read_bytes())
    del proto.pieces[130000:]
    proto.trainer_spec.byte_fallback = False
    old = ChatGLMTokenizer(proto.SerializeToString())
    assert old.vocab_size == 150344 and old.padded_vocab_size == 150528
    assert {old.special[name] for name in ("MASK", "gMASK", "sop", "eop", "pad")} == {
        150000,
        150001,
        150004,
        150005,
        20003,
    }
    for row in golden["texts"]:
        expected = [id + 20000 for id in row["ids"]]
        assert old.encode_prompt(row["text"]) == expected, row["text"]
        assert old.decode(expected) == row["decode"], row["text"]
    assert old.decode([5]) == "<image_5>"
