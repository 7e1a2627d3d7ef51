"""A corpus of one book: it is divided between the splits, and stays so when it grows."""

import gzip
import json
import random
from itertools import pairwise

import pytest

from glm_jax.cli.main import main
from glm_jax.data.prepare.run import prepare
from glm_jax.data.prepare.runner import LocalRunner
from glm_jax.data.sources import pieces
from glm_jax.errors import RunError, UsageError
from tests.data.prepare.stores import TEXTS, files_below, stored_documents, write_jsonl

WORDS = random.Random(0)
BOOK = "\n\n".join(
    " ".join(f"w{WORDS.randrange(500)}" for _ in range(WORDS.randrange(20, 90))) + "."
    for _ in range(300)
)
SPLITS = ("train", "validation")


def stored_texts(store, tokenizer, splits=SPLITS):
    return {
        split: [tokenizer.decode(ids[1:-1]) for ids in stored_documents(store, split)]
        for split in splits
    }


def prepared(folder, name, text, tokenizer, **options):
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "book.txt").write_text(text)
    report = prepare([folder / name], folder / f"{name}_store", tokenizer, **options)
    return report, stored_texts(folder / f"{name}_store", tokenizer, report.splits)


def test_a_single_book_is_prepared_with_the_default_fractions(tmp_path, capsys):
    (tmp_path / "book.txt").write_text(BOOK)
    arguments = ["--train_tokenizer=300", "--workers=1", f"--out={tmp_path}/store"]
    assert main(["prepare", str(tmp_path / "book.txt"), *arguments]) == 0
    printed = capsys.readouterr().out
    assert "splits: long documents are divided by stretches of some 2,048 characters" in printed
    report = json.loads((tmp_path / "store/report.json").read_bytes())
    assert report["split_by"] == "stretches"
    assert report["incidents"]["divided_documents"] == 1
    assert 0.005 < report["splits"]["validation"]["num_tokens"] / report["tokens"] < 0.05


@pytest.mark.parametrize("test_fraction", [0.0, 0.1])
def test_no_text_is_in_two_splits_or_in_none(tokenizer, tmp_path, test_fraction):
    report, texts = prepared(
        tmp_path, "book", BOOK, tokenizer, validation_fraction=0.1, test_fraction=test_fraction
    )
    everything = [text for of_split in texts.values() for text in of_split]
    assert sum(map(len, everything)) == pytest.approx(len(BOOK), rel=0.01)
    at = sorted((BOOK.index(text), BOOK.index(text) + len(text)) for text in everything)
    for (_, end), (start, _) in pairwise(at):
        assert BOOK[end:start].isspace()  # and not empty
    assert all(text.endswith(".") for text in everything)  # borders of paragraphs
    for split, share in (("validation", 0.1), ("test", test_fraction)):
        if share:
            assert report.splits[split]["num_tokens"] / report.tokens == pytest.approx(
                share, abs=0.05
            )


def test_what_is_appended_moves_nothing_between_the_splits(tokenizer, tmp_path):
    earlier = None
    for number, length in enumerate((6000, 9999, 30_000, len(BOOK))):
        _, texts = prepared(tmp_path, f"book{number}", BOOK[:length], tokenizer)
        for split, old in (earlier or {}).items():
            joined = "\0".join(texts[split])
            assert all(text in joined for text in old)
        earlier = texts


def test_books_that_are_added_move_nothing_either(tokenizer, tmp_path):
    write_jsonl(tmp_path / "one.jsonl", [BOOK])
    write_jsonl(tmp_path / "more.jsonl", ["A note.", BOOK[::-1], BOOK, BOOK[1000:50_000]])
    prepare([tmp_path / "one.jsonl"], tmp_path / "one", tokenizer)
    prepare([tmp_path / "more.jsonl"], tmp_path / "more", tokenizer, split_by="stretches")
    one, more = (stored_texts(tmp_path / name, tokenizer) for name in ("one", "more"))
    for split in SPLITS:
        assert set(one[split]) < set(more[split])


def test_documents_are_divided_only_where_that_is_needed_or_asked_for(tokenizer, tmp_path):
    source = write_jsonl(tmp_path / "corpus.jsonl", [*TEXTS, BOOK])
    auto = prepare([source], tmp_path / "auto", tokenizer)
    prepare([source], tmp_path / "documents", tokenizer, split_by="documents")
    divided = prepare([source], tmp_path / "stretches", tokenizer, split_by="stretches")
    assert files_below(tmp_path / "auto") == files_below(tmp_path / "documents")
    assert (auto.split_by, auto.incidents.divided_documents) == ("documents", 0)
    assert (divided.split_by, divided.incidents.divided_documents) == ("stretches", 1)


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ([BOOK], {"split_by": "documents"}, "validation split would be empty: 1 documents"),
        (["short"], {}, r"none of them long enough to be divided \(8,192 characters\)"),
        ([BOOK], {"split_by": "lines"}, "split_by is 'lines', expected one of documents, str"),
    ],
)
def test_what_is_impossible_is_one_sentence(tokenizer, tmp_path, texts, options, message):
    source = write_jsonl(tmp_path / "corpus.jsonl", texts)
    with pytest.raises(UsageError, match=message):
        prepare([source], tmp_path / "out/store", tokenizer, **options)
    assert not list((tmp_path / "out").glob("*"))


def test_a_killed_run_resumes_with_the_stretches_it_has(tokenizer, tmp_path, small_shards):
    source = write_jsonl(tmp_path / "corpus.jsonl", [BOOK, BOOK[5:], "short", BOOK[9:]])
    expected = prepare([source], tmp_path / "expected", tokenizer)
    previous = 0

    def stop(documents, _num_bytes):
        nonlocal previous
        if documents < previous:  # the first shard of the second pass
            raise InterruptedError
        previous = documents

    with pytest.raises(RunError):
        prepare([source], tmp_path / "store", tokenizer, progress=stop)
    assert previous == 4
    [job] = (tmp_path / ".store.shards").iterdir()
    done = {path: path.stat().st_mtime_ns for path in job.glob("*.npz")}
    assert done
    seen = {}

    def look(*_done):
        seen.update({path: path.stat().st_mtime_ns for path in done if path.exists()})

    assert prepare([source], tmp_path / "store", tokenizer, progress=look) == expected
    assert seen == done
    assert files_below(tmp_path / "store") == files_below(tmp_path / "expected")


def test_a_book_is_divided_alike_however_it_is_stored(tokenizer, tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "book.txt").write_text(BOOK)
    (tmp_path / "book.TXT.gz").write_bytes(gzip.compress(BOOK.encode()))
    write_jsonl(tmp_path / "book.jsonl", [BOOK])
    parquet.write_table(pyarrow.table({"text": [BOOK]}), tmp_path / "book.parquet")
    expected = None
    for piece_bytes in (pieces.PIECE_BYTES, 1000):
        monkeypatch.setattr(pieces, "PIECE_BYTES", piece_bytes)
        for source in sorted(tmp_path.glob("book.*")):
            out = tmp_path / "stores" / f"{source.name}_{piece_bytes}"
            prepare([source], out, tokenizer, validation_fraction=0.05, drop_duplicates=True)
            found = [files_below(out / split) for split in SPLITS]
            expected = expected or found
            assert found == expected


def test_the_store_of_a_book_does_not_depend_on_the_workers(tokenizer, tmp_path, small_shards):
    source = write_jsonl(tmp_path / "corpus.jsonl", [BOOK[number:] for number in range(3)])
    for workers in (1, 2):
        prepare([source], tmp_path / str(workers), tokenizer, runner=LocalRunner(workers))
    assert files_below(tmp_path / "1") == files_below(tmp_path / "2")
