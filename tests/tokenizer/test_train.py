"""Training a tokenizer of one's own."""

import pytest

from glm_jax.errors import UsageError
from glm_jax.tokenizer import load_tokenizer, train_sentencepiece

TEXTS = [f"Line {number} of text {number * number}.\n\nAnother paragraph." for number in range(200)]


def test_vocabulary_has_the_size_asked_for_and_all_mask_tokens(tmp_path):
    tokenizer = train_sentencepiece(TEXTS, tmp_path, vocab_size=350)
    assert tokenizer.special["eos"] == 350
    assert {"MASK", "sMASK", "gMASK", "dBLOCK"} <= set(tokenizer.special)
    assert tokenizer.padded_vocab_size == 384
    assert load_tokenizer(tmp_path).fingerprint == tokenizer.fingerprint


def test_training_is_deterministic_also_when_it_samples(tmp_path):
    first, second = (
        train_sentencepiece(iter(TEXTS), tmp_path / name, vocab_size=320, sample_lines=100)
        for name in ("first", "second")
    )
    every_line = train_sentencepiece(TEXTS, tmp_path / "every_line", vocab_size=320)
    assert first.fingerprint == second.fingerprint != every_line.fingerprint


def test_long_lines_are_learned_from(tmp_path):
    text = "remarkable " * 3000  # one line of 33,000 characters
    tokenizer = train_sentencepiece([text], tmp_path, vocab_size=300)
    assert len(tokenizer.encode_text(text)) <= 3001


def test_newlines_are_tokens_of_their_own(tmp_path):
    tokenizer = train_sentencepiece(TEXTS, tmp_path, vocab_size=350)
    ids = tokenizer.encode_text("Line\n\n\nAnother\n")
    assert [tokenizer.piece(id) for id in ids].count("\n") == 4


def test_training_prints_nothing(tmp_path, capfd):
    train_sentencepiece(TEXTS, tmp_path, vocab_size=320)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "texts, vocab_size, message",
    [
        (TEXTS, 100_000, r"vocab_size is 100000, but this text gives at most \d+ pieces"),
        (TEXTS, 20, r"vocab_size is 20, but .* need \d+ pieces"),
        (TEXTS, 1, r"vocab_size is 1, but .* need \d+ pieces"),
        (TEXTS, 0, r"vocab_size is 0; expected 1 to 2147483647"),
        (TEXTS, -5, r"vocab_size is -5; expected 1 to"),
        pytest.param(
            *(
                TEXTS,
                2**31 - 1,
                r"vocab_size is 2147483647, but this text gives at most \d+ pieces",
            ),
            marks=pytest.mark.slow,
        ),
        (TEXTS, 10**30, r"vocab_size is 10+; expected 1 to"),
        ([], 300, "no text"),
        (["", " \n\t\n"], 300, "no text"),
    ],
)
def test_what_cannot_be_trained_is_said_in_a_sentence(tmp_path, texts, vocab_size, message):
    with pytest.raises(UsageError, match=message):
        train_sentencepiece(texts, tmp_path / "tokenizer", vocab_size=vocab_size)
    assert not (tmp_path / "tokenizer").exists()


def test_failures_of_the_texts_are_passed_on(tmp_path):
    def texts():
        yield "some text"
        raise UsageError("the source is bad")

    with pytest.raises(UsageError, match="the source is bad"):
        train_sentencepiece(texts(), tmp_path, vocab_size=300)
