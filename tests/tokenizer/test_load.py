"""Finding a tokenizer by kind or folder."""

import pytest
import tokenizers

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
        (["elmo"], {}, "sentencepiece"),
        (["elmo", "vocab.txt"], {}, "sentencepiece"),
        (["bert", "nowhere.txt"], {}, "vocab.txt: there is no file .*/nowhere.txt"),
        (["gpt2"], {}, "vocab.json and its merges.txt"),
        (["sentencepiece"], {}, "its SentencePiece model, or of a folder"),
        (["sentencepiece", "nowhere.model"], {}, "nowhere.model"),
        (["chinese"], {"sentinels": -3}, "sentinels"),
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


@pytest.mark.parametrize("file", ["pieces.model", "glm_tokenizer.json"])
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


def test_files_are_found_in_a_folder(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\n##s\n")
    tokenizer = load_tokenizer("bert", tmp_path, task_mask=True)
    assert tokenizer.encode("Hellos [MASK]?") == [5, 6, 4, 1]
    with pytest.raises(UsageError, match=r"'gpt2' needs its vocab\.json, and .* has none"):
        load_tokenizer("gpt2", tmp_path)
    (tmp_path / "vocab.txt").rename(tmp_path / "a-vocab.txt")
    (tmp_path / "b-vocab.txt").write_text("x\n")
    with pytest.raises(UsageError, match=r"a-vocab\.txt, b-vocab\.txt: give the file itself"):
        load_tokenizer("bert", tmp_path)


def test_cased_and_uncased_differ_only_in_case_and_accents(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhé\nHé\nhe\n")
    assert load_tokenizer("bert-cased", tmp_path).encode("Hé hé he") == [6, 5, 7]
    assert load_tokenizer("bert", tmp_path).encode("Hé hé he") == [7, 7, 7]


def test_a_hugging_face_description_is_a_tokenizer(tmp_path):
    words = {"<s>": 0, "a": 1, "b": 2, "<unk>": 3}
    library = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    library.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    library.add_special_tokens(["<s>"])
    library.enable_truncation(1)
    library.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer("huggingface", tmp_path / "tokenizer.json")
    special = tokenizer.special
    # Its own special text in a text is text; ours stands for our token.
    assert tokenizer.encode("a a<s>b [MASK] a") == [1, 3, special["MASK"], 1]
    assert special["eos"] == 4 and tokenizer.vocab_size == 11
    tokenizer.save(tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    assert again.fingerprint == tokenizer.fingerprint
    assert again.encode_batch(["a b", "", "b [sMASK]"]) == tokenizer.encode_batch(
        ["a b", "", "b [sMASK]"]
    )
    assert tokenizer.decode([1, special["sop"], 2]) == "a<|startofpiece|>b"
