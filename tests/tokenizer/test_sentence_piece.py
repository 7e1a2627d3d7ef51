"""Encoding and decoding, with the published Chinese model and with one of our own."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_jax.errors import UsageError
from glm_jax.tokenizer import load_tokenizer, train_sentencepiece

PROSE = "Some words of prose. More words follow; do they end here? No!\n  They never end: so be it."


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    return train_sentencepiece([PROSE] * 3, tmp_path_factory.mktemp("own"), vocab_size=330)


@pytest.fixture(scope="module")
def model_file(shared):
    return shared / "vocabs/cog-pretrain.model"


@pytest.mark.parametrize(
    "name, options",
    [
        ("chinese_sp", {}),
        ("chinese_sp_task_mask", {"task_mask": True}),
        ("chinese_sp_task_mask_dblock", {"task_mask": True, "decoder_mask": True}),
        ("chinese_sp_fix_command_token", {"task_mask": True, "fix_command_token": True}),
        (
            "chinese_sp_fix_command_token_dblock",
            {"task_mask": True, "fix_command_token": True, "decoder_mask": True},
        ),
    ],
)
def test_chinese_is_the_originals(shared, model_file, name, options):
    folder = shared / "goldens/e_tokenizers"
    recorded = json.loads((folder / f"{name}.json").read_bytes())
    texts = json.loads((folder / "texts.json").read_bytes())
    tokenizer = load_tokenizer("chinese", model_file, **options)

    assert tokenizer.special == recorded["name_to_id"]
    assert tokenizer.vocab_size == recorded["num_tokens"]
    assert tokenizer.padded_vocab_size == recorded["padded_vocab_size"]
    assert tokenizer.encode_batch(texts) == [row["ids"] for row in recorded["encode"]]
    rows = recorded["encode"] + recorded["decode_random"]
    assert [tokenizer.decode(row["ids"]) for row in rows] == [row["decoded"] for row in rows]
    for row in recorded["decode_random"]:
        assert [tokenizer.piece(id) for id in row["ids"]] == row["tokens"]


@settings(deadline=None, max_examples=200)
@given(text=st.text().filter(lambda text: "\u2581" not in text))
def test_own_model_gives_every_text_back(own, text):
    ids = own.encode_text(text)
    assert own.decode(ids) == text
    assert all(id < own.special["eos"] for id in ids)


@settings(deadline=None, max_examples=100)
@given(parts=st.lists(st.sampled_from([" some words", ".", "\n", "[MASK]", "[CLS]", "é"])))
def test_encoding_again_gives_the_same_ids(own, parts):
    ids = own.encode("".join(parts))
    assert own.encode(own.decode(ids)) == ids


def test_special_texts_become_their_ids_and_masks_strip_to_their_left(own):
    special = own.special
    for name in ("ENC", "sep", "unk", "sop", "eop", "eos", "dBLOCK", "MASK", "sMASK", "gMASK"):
        assert own.encode(own.piece(special[name])) == [special[name]]
    words, more = own.encode_text("Some words"), own.encode_text(" follow")
    for name in ("MASK", "sMASK", "gMASK"):
        mask = own.piece(special[name])
        assert own.encode(f"Some words \n {mask} follow") == [*words, special[name], *more]
    kept = own.encode_text("Some words ")
    assert own.encode("Some words [SEP] follow") == [*kept, special["sep"], *more]


def test_encode_text_takes_special_texts_literally(own):
    ids = own.encode_text("a [MASK] b<|endoftext|>")
    assert max(ids) < own.special["eos"]
    assert own.decode(ids) == "a [MASK] b<|endoftext|>"


def test_sentence_ends_are_the_tokens_with_a_sentence_end_in_them(own):
    assert own.sentence_end.shape == (own.padded_vocab_size,)
    for mark in ".?!;:。？！；…\n":
        ids = own.encode_text(f"words{mark}")
        assert own.sentence_end[ids].tolist() == [False] * (len(ids) - 1) + [True]
    assert not own.sentence_end[own.special["eos"] :].any()
    assert not own.sentence_end[own.encode_text("Some words, of prose")].any()


def test_lone_surrogates_count_as_question_marks(own):
    assert own.encode("so\udc80 be it [MASK]") == own.encode("so? be it [MASK]")


def test_ids_that_name_nothing_decode_to_nothing(own):
    assert own.decode([own.padded_vocab_size - 1]) == ""
    assert "unused" in own.piece(own.padded_vocab_size - 1)
    assert own.decode(np.array(own.encode_text("prose"), np.int32)) == "prose"
    for id in (-1, own.padded_vocab_size):
        with pytest.raises(UsageError, match=str(id)):
            own.decode([id])


def test_fingerprint_tells_vocabularies_and_tables_apart(own, model_file, tmp_path):
    other = train_sentencepiece([PROSE] * 3, tmp_path, vocab_size=331)
    plain = load_tokenizer("chinese", model_file)
    masks = load_tokenizer("chinese", model_file, task_mask=True)
    assert len({own.fingerprint, other.fingerprint, plain.fingerprint, masks.fingerprint}) == 4
    assert load_tokenizer("chinese", model_file).fingerprint == plain.fingerprint
