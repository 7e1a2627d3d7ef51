"""The flags of `glm-jax prepare`."""

import json

import pytest

from glm_jax.cli.main import main
from glm_jax.data.store.store import open_store
from glm_jax.tokenizer import load_tokenizer


def prepared(corpus, out, *flags):
    return main(["prepare", str(corpus), f"--out={out}", "--workers=1", *map(str, flags)])


def word_pieces(folder):
    """A vocabulary of kind bert."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
    words += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    return folder / "vocab.txt"


def test_a_kind_with_its_files_and_options_makes_the_tokenizer(corpus, tmp_path, capsys):
    vocabulary = word_pieces(tmp_path)
    flags = ["--tokenizer=bert", f"--tokenizer_files={vocabulary}", "--task_mask", "--decoder_mask"]
    assert prepared(corpus, tmp_path / "store", *flags, "--sentinels=3") == 0
    expected = load_tokenizer("bert", vocabulary, task_mask=True, decoder_mask=True, sentinels=3)
    store = open_store(tmp_path / "store")
    assert store.metadata.tokenizer_fingerprint == expected.fingerprint
    assert load_tokenizer(tmp_path / "store").special == expected.special
    assert "documents, " in capsys.readouterr().out


def test_a_tokenizer_is_found_in_a_folder_a_file_or_by_url(corpus, tokenizer, tmp_path):
    tokenizer.save(tmp_path / "saved")
    [model] = (tmp_path / "saved").glob("*.model")
    for number, name in enumerate(
        [tmp_path / "saved", model, f"file://{tmp_path}/saved", f"file://{model}"]
    ):
        assert prepared(corpus, tmp_path / str(number), f"--tokenizer={name}") == 0
        assert load_tokenizer(tmp_path / str(number)).fingerprint == tokenizer.fingerprint


def test_splits_duplicates_and_filter_are_passed_on(corpus, tokenizer, tmp_path):
    tokenizer.save(tmp_path / "saved")
    (tmp_path / "mine.py").write_text("def long(document):\n    return len(document.text) > 115\n")
    corpus.write_text(corpus.read_text() * 2)
    flags = ["--validation_fraction=0.2", "--test_fraction=0.2", "--drop_duplicates"]
    flags += [f"--tokenizer={tmp_path}/saved", f"--filter={tmp_path}/mine.py:long"]
    assert prepared(corpus, tmp_path / "store", *flags) == 0
    report = json.loads((tmp_path / "store/report.json").read_bytes())
    assert set(report["splits"]) == {"train", "validation", "test"}
    assert report["duplicates"] == report["documents"] > 0
    assert report["incidents"]["filtered_documents"] > 0


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--tokenizer=gpt2"], "--tokenizer=gpt2 needs --tokenizer_files: its vocab.json and its"),
        (["--tokenizer=nowhere"], "--tokenizer is nowhere, which is neither a file nor a folder"),
        (["--train_tokenizer=300", "--task_mask"], "--task_mask needs --tokenizer to be one of"),
        (
            ["--tokenizer=file:///no/where"],
            "file:///no/where, which is neither a file",
        ),
        (["--train_tokenizer=0"], "--train_tokenizer is 0; expected 1 to"),
        (["--train_tokenizer=-3"], "--train_tokenizer is -3; expected 1 to"),
        (["--train_tokenizer=5"], "--train_tokenizer is 5, but the bytes and characters of this"),
        (["--train_tokenizer=99999"], "--train_tokenizer is 99999, but this text gives at most"),
        (["--train_tokenizer=9999999999"], "--train_tokenizer is 9999999999; expected 1 to"),
        (["--train_tokenizer=many"], "argument --train_tokenizer: invalid int value: 'many'"),
        (["--train_tokenizer=300", "--beam_options=--x"], "--beam_options is for Apache Beam"),
        (["--train_tokenizer=300", "--text_key=body"], "has the key 'body'; keys found: text"),
    ],
)
def test_flags_that_do_not_fit_are_one_sentence(corpus, tmp_path, capsys, flags, message):
    assert prepared(corpus, tmp_path / "store", *flags) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.jsonl"]


def test_a_broken_file_alone_is_one_sentence(tmp_path, capsys):
    (tmp_path / "broken.jsonl.gz").write_bytes(b"no gzip at all")
    flags = ["--tokenizer=bert", f"--tokenizer_files={word_pieces(tmp_path)}"]
    assert prepared(tmp_path / "broken.jsonl.gz", tmp_path / "out/store", *flags) == 2
    error = capsys.readouterr().err
    assert "no document with text (unreadable files: " in error
    assert "broken.jsonl.gz (Not a gzipped file" in error and len(error.splitlines()) == 1


def test_beam_without_its_package_is_one_sentence(corpus, tmp_path, capsys):
    try:
        import apache_beam  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        arguments = ["prepare", str(corpus), f"--out={tmp_path}/store", "--runner=DirectRunner"]
        tokenizer = f"--tokenizer_files={word_pieces(tmp_path)}"
        assert main([*arguments, "--tokenizer=bert", tokenizer]) == 2
        assert "--runner=DirectRunner needs Apache Beam" in capsys.readouterr().err
    else:
        pytest.skip("Apache Beam is installed here")
