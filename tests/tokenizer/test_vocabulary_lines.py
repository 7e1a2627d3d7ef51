"""Which characters end a line of a vocabulary."""

import pytest

from glm_jax.io.encodings import text_lines
from glm_jax.tokenizer import load_tokenizer
from glm_jax.tokenizer.byte_pair import BytePairModel
from glm_jax.tokenizer.word_piece import WordPieceModel

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "\u2028", "\x85", "\x0b", "hello", "##s"]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("at_end", [True, False])
def test_only_newlines_end_a_line(mark, newline, at_end):
    content = mark + newline.join(PIECES) + newline * at_end
    model = WordPieceModel(content.encode(), lowercase=True)
    assert [model.piece(id) for id in range(model.size)] == PIECES


def test_an_empty_line_is_a_piece():
    model = WordPieceModel(b"[UNK]\n\nb\n\n", lowercase=True)
    assert [model.piece(id) for id in range(model.size)] == ["[UNK]", "", "b", ""]
    assert text_lines("") == []


def test_ids_of_a_bert_vocabulary_are_its_line_numbers(tmp_path):
    (tmp_path / "vocab.txt").write_bytes("\ufeff".encode() + "\n".join(PIECES).encode())
    tokenizer = load_tokenizer("bert", tmp_path)
    assert tokenizer.encode("hello") == [PIECES.index("hello")]
    assert tokenizer.special["pad"] == 0


def test_merges_may_start_with_a_byte_order_mark():
    vocabulary = b'{"a": 0, "b": 1, "ab": 2}'
    merges = "\ufeff#version: 0.2\r\na b\r\n".encode()
    assert BytePairModel(vocabulary, merges).encode("ab") == [2]
