"""ChatGLM's tokenizer on any text, and its files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_jax.errors import RunError, UsageError
from glm_jax.tokenizer import Tokenizer, load_tokenizer, train_sentencepiece
from glm_jax.tokenizer.chatglm import SPECIAL_IN_TEXT, ChatGLMTokenizer
from glm_jax.tokenizer.chatglm_batch import pad_batch, truncated_prompt
from tests.tokenizer.chatglm_stand_in import stand_in_model, stand_in_tokenizer

CHUNKS = (
    *SPECIAL_IN_TEXT,
    *("[gMASK]", "[sMASK]", "<ENC>", "<dBLOCK>", "<unused_0>", "<s>", "</s>"),
    *("<0x0A>", "<so", "p>", "[MASK", "]", " ", "  ", "\n", "\t", "你好", "word", "1", "😀"),
)
TEXTS = st.lists(st.sampled_from(CHUNKS) | st.text(max_size=4), max_size=12).map("".join)


def control_ids(tokenizer: ChatGLMTokenizer) -> set[int]:
    """Ids that mean something to the network: control pieces, <unk>, <s>, </s> and <pad>."""
    first = tokenizer.special["MASK"]
    return {*range(first, first + 8), 0, 1, 2, 3}


@given(TEXTS)
def test_text_taken_literally_never_becomes_a_special_token(text):
    tokenizer = stand_in_tokenizer()
    assert control_ids(tokenizer).isdisjoint(tokenizer.encode_text(text))


@given(TEXTS)
def test_special_tokens_of_a_text_are_its_literal_ones_in_order(text):
    tokenizer = stand_in_tokenizer()
    ids = tokenizer.encode(text)
    found = re.findall("|".join(map(re.escape, SPECIAL_IN_TEXT)), text)
    assert [tokenizer.piece(id) for id in ids if id in control_ids(tokenizer)] == found


@given(TEXTS)
def test_whitespace_beside_special_tokens_is_dropped(text):
    tokenizer = stand_in_tokenizer()
    pattern = "|".join(map(re.escape, SPECIAL_IN_TEXT))
    squeezed = re.sub(rf"\s*({pattern})\s*", r"\1", text)
    # Whitespace alone between two special tokens belongs to both.
    squeezed = re.sub(rf"({pattern})\s+(?={pattern})", r"\1", squeezed)
    assert tokenizer.encode(text) == tokenizer.encode(squeezed)


@given(st.text(alphabet="abc\n\t", min_size=1))
def test_lines_and_tabs_come_back(text):
    tokenizer = stand_in_tokenizer()
    assert tokenizer.decode(tokenizer.encode_text(text), clean_up=False) == text


@given(st.integers(2, 300))
def test_runs_of_spaces_come_back(count):
    tokenizer = stand_in_tokenizer()
    decoded = tokenizer.decode(tokenizer.encode_text(f"a{' ' * count}b"), clean_up=False)
    assert decoded == f"a{' ' * count}b"


def test_characters_beyond_the_vocabulary_are_bytes_and_come_back():
    tokenizer = stand_in_tokenizer()
    ids = tokenizer.encode_text("a𠮷b😀")
    assert len(ids) > 8 and tokenizer.decode(ids) == "a𠮷b😀"


def test_a_lone_surrogate_is_a_question_mark():
    assert stand_in_tokenizer().encode_text("a\ud800") == stand_in_tokenizer().encode_text("a?")


def test_clean_up_of_spaces():
    tokenizer = stand_in_tokenizer()
    ids = tokenizer.encode_text("it 's , ok ? we 've do n't !")
    assert tokenizer.decode(ids) == "it's, ok? we've don't!"
    assert tokenizer.decode(ids, clean_up=False) == "it 's , ok ? we 've do n't !"


def test_old_release_gets_its_special_pieces_and_image_tokens():
    old = ChatGLMTokenizer(stand_in_model(old_release=True))
    new = stand_in_tokenizer()
    assert old.num_image_tokens == 20000 and new.num_image_tokens == 0
    assert old.vocab_size == new.vocab_size + 20000
    text = "a [MASK] b\n  c 😀"
    assert old.encode_prompt(text, "x") == [id + 20000 for id in new.encode_prompt(text, "x")]
    assert old.decode([7, *old.encode_text("a  b")]) == "<image_7>a  b"
    assert old.piece(7) == "<image_7>"


def test_ids_outside_the_vocabulary_are_refused_and_padding_rows_left_out():
    tokenizer = stand_in_tokenizer()
    rows = [tokenizer.vocab_size, tokenizer.padded_vocab_size - 1]
    assert tokenizer.decode([*rows, *tokenizer.encode_text("a")]) == "a"
    assert tokenizer.piece(rows[0]) == f"<unused {rows[0]}>"
    for id in (-1, tokenizer.padded_vocab_size):
        with pytest.raises(UsageError, match="outside the padded vocabulary"):
            tokenizer.decode([id])


def test_sentence_ends_are_pieces_of_text_with_such_a_character():
    tokenizer = stand_in_tokenizer()
    ends = tokenizer.sentence_end
    assert len(ends) == tokenizer.padded_vocab_size
    assert all(ends[tokenizer.encode_text("a" + mark)[-1]] for mark in (".", "!", "\n", "。"))
    assert not ends[tokenizer.encode_text("a")[-1]] and not ends[tokenizer.special["sop"]]


def test_saved_and_loaded(tmp_path: Path):
    tokenizer = ChatGLMTokenizer(stand_in_model(), num_image_tokens=5)
    assert isinstance(tokenizer, Tokenizer)
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.special == tokenizer.special
    (tmp_path / "ice_text.model").write_bytes(stand_in_model(old_release=True))
    with pytest.raises(RunError, match="changed after it was saved"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("config", "num_image_tokens"),
    [({"num_image_tokens": 0}, 0), ({}, 20000), (None, 0), ({"num_image_tokens": "x"}, None)],
)
def test_published_folder(tmp_path: Path, config: dict | None, num_image_tokens: int | None):
    (tmp_path / "ice_text.model").write_bytes(stand_in_model())
    if config is not None:
        text = json.dumps({"tokenizer_class": "ChatGLMTokenizer", **config})
        (tmp_path / "tokenizer_config.json").write_text(text)
    if num_image_tokens is None:
        with pytest.raises(UsageError, match=r"num_image_tokens in .* must be an integer"):
            load_tokenizer(tmp_path)
        return
    for loaded in (load_tokenizer(tmp_path), load_tokenizer("chatglm", tmp_path)):
        assert isinstance(loaded, ChatGLMTokenizer)
        assert loaded.num_image_tokens == num_image_tokens


def test_wrong_files_and_options_are_one_sentence(tmp_path: Path):
    (tmp_path / "text.model").write_text("no model")
    with pytest.raises(UsageError, match="not a SentencePiece model"):
        load_tokenizer("chatglm", tmp_path / "text.model")
    train_sentencepiece(["hello"], tmp_path / "other", vocab_size=280)
    with pytest.raises(UsageError, match=r"not ChatGLM's ice_text.model: it has no piece"):
        load_tokenizer("chatglm", tmp_path / "other" / "pieces.model")
    (tmp_path / "ice_text.model").write_bytes(stand_in_model())
    with pytest.raises(UsageError, match="takes no options"):
        load_tokenizer("chatglm", tmp_path / "ice_text.model", task_mask=True)
    with pytest.raises(UsageError, match="num_image_tokens is only for"):
        load_tokenizer("sentencepiece", tmp_path / "ice_text.model", num_image_tokens=0)
    with pytest.raises(UsageError, match="num_image_tokens is -1"):
        load_tokenizer("chatglm", tmp_path / "ice_text.model", num_image_tokens=-1)


def test_batches_that_do_not_fit_are_refused():
    tokenizer = stand_in_tokenizer()
    with pytest.raises(UsageError, match="max_length is 2, but must be 3 or more"):
        truncated_prompt(tokenizer, "a", "b", 2)
    with pytest.raises(UsageError, match="a row has 4 tokens, but the length is only 3"):
        pad_batch(tokenizer, [[5, 5, 5, 5]], length=3)
