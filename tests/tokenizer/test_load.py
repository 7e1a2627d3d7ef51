"""Finding a tokenizer by kind or folder."""

import pytest

from glm_jax.errors import RunError, UsageError
from glm_jax.tokenizer import load_tokenizer, train_sentencepiece

TEXT = "A few words, and a few more words to make a tokenizer of."


@pytest.fixture
def saved(tmp_path):
    tokenizer = train_sentencepiece([TEXT], tmp_path / "tokenizer", vocab_size=300)
    return tokenizer, tmp_path / "tokenizer"


def test_a_saved_tokenizer_is_the_same_again(saved, tmp_path):
    tokenizer, folder = saved
    tokenizer.save(tmp_path / "copy")
    for path in (folder, folder.parent, str(tmp_path / "copy")):
        again = load_tokenizer(path)
        assert again.fingerprint == tokenizer.fingerprint
        assert again.special == tokenizer.special
        assert again.encode(f"{TEXT} [gMASK]") == tokenizer.encode(f"{TEXT} [gMASK]")


def test_options_choose_the_special_tokens_of_a_model_file(saved):
    tokenizer, folder = saved
    plain = load_tokenizer("sentencepiece", folder / "pieces.model")
    assert not {"sMASK", "gMASK", "dBLOCK"} & set(plain.special)
    assert plain.vocab_size == tokenizer.vocab_size - 3
    full = load_tokenizer(
        "sentencepiece", folder / "pieces.model", task_mask=True, decoder_mask=True
    )
    assert full.fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize(
    "arguments, options, message",
    [
        (["bert"], {}, "sentencepiece, chinese"),
        (["bert", "vocab.txt"], {}, "sentencepiece, chinese"),
        (["sentencepiece"], {}, "one SentencePiece model file"),
        (["sentencepiece", "nowhere.model"], {}, "nowhere.model"),
        (["chinese"], {"sentinels": 3}, "sentinels"),
    ],
)
def test_what_there_is_not_is_said_in_a_sentence(arguments, options, message):
    with pytest.raises(UsageError, match=message):
        load_tokenizer(*arguments, **options)


def test_wrong_use_of_a_saved_tokenizer_is_refused(saved, tmp_path):
    _, folder = saved
    with pytest.raises(UsageError, match="no files or options"):
        load_tokenizer(folder, task_mask=True)
    with pytest.raises(UsageError, match="neither a folder"):
        load_tokenizer(tmp_path / "elsewhere")
    (tmp_path / "some.model").write_text("no model")
    with pytest.raises(UsageError, match="not a SentencePiece model"):
        load_tokenizer("sentencepiece", tmp_path / "some.model")


@pytest.mark.parametrize("file", ["pieces.model", "tokenizer.json"])
def test_damaged_files_are_noticed(saved, file):
    _, folder = saved
    content = bytearray((folder / file).read_bytes())
    (folder / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(RunError, match=str(folder)):
        load_tokenizer(folder)


def test_a_model_of_another_training_is_noticed(saved, tmp_path):
    _, folder = saved
    train_sentencepiece([TEXT], tmp_path / "other", vocab_size=299)
    (folder / "pieces.model").write_bytes((tmp_path / "other/pieces.model").read_bytes())
    with pytest.raises(RunError, match="changed after it was saved"):
        load_tokenizer(folder)
