"""From text to a finished store: what gets in, the same whoever makes it, and what it reports."""

import gzip
import json
import subprocess
import sys

import numpy as np
import pytest

from glm_jax.data.prepare.run import prepare
from glm_jax.data.prepare.runner import LocalRunner
from glm_jax.data.sources import pieces
from glm_jax.data.store.store import open_store
from glm_jax.errors import RunError, UsageError
from glm_jax.io.files import read_file
from tests.data.prepare.stores import TEXTS, files_below, stored_documents, write_jsonl
from tests.data.store.writing import write_store


def test_every_document_is_stored_between_enc_and_eos(corpus, tokenizer, tmp_path):
    report = prepare([corpus], tmp_path / "store", tokenizer, validation_fraction=0.2)
    train, validation = (
        stored_documents(tmp_path / "store", split) for split in ("train", "validation")
    )
    special = tokenizer.special
    for ids in train + validation:
        assert ids[0] == special["ENC"]
        assert ids[-1] == special["eos"]
        # A mask written out in a document stays plain text.
        assert max(ids[1:-1]) < special["eos"]
    decoded = [tokenizer.decode(ids[1:-1]) for ids in train + validation]
    assert sorted(decoded) == sorted(TEXTS)
    order = {text: place for place, text in enumerate(TEXTS)}
    places = [order[tokenizer.decode(ids[1:-1])] for ids in train]
    assert places == sorted(places)
    assert 30 < len(validation) < 90

    assert report.documents == len(TEXTS)
    assert report.text_bytes == sum(len(text.encode()) for text in TEXTS)
    assert report.tokens == sum(map(len, train + validation))
    assert report.bytes_per_token == report.text_bytes / report.tokens
    assert report.splits["validation"]["num_documents"] == len(validation)
    saved = json.loads((tmp_path / "store/report.json").read_bytes())
    assert saved["documents"] == report.documents
    assert saved["sources"] == [str(corpus)]


def test_the_store_is_the_same_for_any_number_of_workers(corpus, tokenizer, tmp_path, small_shards):
    for workers in (1, 2, 3):
        prepare([corpus], tmp_path / str(workers), tokenizer, runner=LocalRunner(workers))
    files = files_below(tmp_path / "1")
    assert len(files) > 12
    assert files_below(tmp_path / "2") == files
    assert files_below(tmp_path / "3") == files


def test_the_store_does_not_depend_on_how_the_sources_are_cut(
    corpus, tokenizer, tmp_path, monkeypatch
):
    whole = tmp_path / "whole"
    prepare([corpus], whole, tokenizer, drop_duplicates=True)
    monkeypatch.setattr(pieces, "PIECE_BYTES", 313)
    prepare([corpus], tmp_path / "cut", tokenizer, drop_duplicates=True)
    assert files_below(tmp_path / "cut") == files_below(whole)


def test_the_arrays_are_those_of_a_store_written_at_once(corpus, tokenizer, tmp_path, small_shards):
    prepare([corpus], tmp_path / "store", tokenizer, validation_fraction=0.2)
    documents = {
        split: stored_documents(tmp_path / "store", split) for split in ("train", "validation")
    }
    write_store(tmp_path / "at_once", documents, tokenizer)
    for split in documents:
        expected = files_below(tmp_path / "at_once" / split)
        assert len(expected) > 4
        assert files_below(tmp_path / "store" / split) == expected


def test_troubles_of_the_sources_are_survived_and_reported(tokenizer, tmp_path):
    for number in range(20):
        (tmp_path / f"good{number}.txt").write_text(f"A good document, number {number}.")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "broken.jsonl").write_text('{"text": "fine"}\n{"text": \n')
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"never read to its end")[:-9])
    report = prepare([tmp_path], tmp_path / "out/store", tokenizer, validation_fraction=0.3)
    assert report.documents == 22
    saved = json.loads((tmp_path / "out/store/report.json").read_bytes())
    assert saved["incidents"] == {
        "empty_documents": 1,
        "filtered_documents": 0,
        "documents_with_bad_utf8": 1,
        "split_documents": 0,
        "divided_documents": 0,
        "bad_json_lines": 1,
        "lines_without_text": 0,
        "unreadable_files": [
            f"{tmp_path}/cut.txt.gz "
            "(Compressed file ended before the end-of-stream marker was reached)"
        ],
        "ignored_files": {},
    }


def test_progress_grows_to_the_whole(corpus, tokenizer, tmp_path, small_shards):
    seen = []
    report = prepare(
        [corpus], tmp_path / "store", tokenizer, progress=lambda *done: seen.append(done)
    )
    assert len(seen) > 10
    assert seen == sorted(seen)
    assert seen[-1] == (report.documents, report.text_bytes)


def test_the_report_counts_lengths_and_tokens(corpus, tokenizer, tmp_path, small_shards):
    report = prepare([corpus], tmp_path / "store", tokenizer, validation_fraction=0.2)
    stored = [
        ids
        for split in ("train", "validation")
        for ids in stored_documents(tmp_path / "store", split)
    ]
    lengths = sorted(map(len, stored))
    assert sum(report.length_counts.values()) == len(stored)
    edges = sorted(report.length_counts)
    assert edges[0] <= lengths[0] and edges[-1] <= lengths[-1]
    half = report.length_reached_by(0.5)
    assert sum(length >= half for length in lengths) >= len(lengths) / 2
    counts = np.bincount(np.concatenate(stored))
    assert [token.count for token in report.frequent_tokens[:5]] == sorted(counts)[:-6:-1]
    top = report.frequent_tokens[0]
    assert counts[top.id] == top.count and top.piece == tokenizer.piece(top.id)
    saved = json.loads((tmp_path / "store/report.json").read_bytes())
    assert saved["frequent_tokens"][0] == {"id": top.id, "piece": top.piece, "count": top.count}
    assert (tmp_path / "store/report.png").read_bytes().startswith(b"\x89PNG")
    assert any(line.startswith("most frequent tokens: ") for line in report.lines())


@pytest.mark.parametrize(
    "texts, options, message",
    [
        (TEXTS, {"validation_fraction": 0.0}, "validation_fraction is 0.0"),
        (TEXTS, {"validation_fraction": 1.0}, "validation_fraction is 1.0"),
        (TEXTS, {"validation_fraction": 0.5, "test_fraction": 0.5}, "test_fraction is 0.5"),
        (TEXTS, {"test_fraction": -0.1}, "test_fraction is -0.1"),
        (TEXTS, {"runner": LocalRunner(0)}, "workers is 0"),
        (TEXTS[:1], {"validation_fraction": 0.001}, "validation split would be empty"),
        (TEXTS[:1], {"validation_fraction": 0.999}, "train split would be empty"),
        ([], {}, "no document"),
        ([" "], {}, r"no document with text \(empty documents: 1\)"),
    ],
)
def test_impossible_demands_are_one_sentence(tokenizer, tmp_path, texts, options, message):
    source = write_jsonl(tmp_path / "corpus.jsonl", texts)
    with pytest.raises(UsageError, match=message):
        prepare([source], tmp_path / "out/store", tokenizer, **options)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_ids_beyond_the_vocabulary_are_one_sentence(corpus, tokenizer, tmp_path, monkeypatch):
    class Unsound:
        padded_vocab_size = 128

        def __getattr__(self, name):
            return getattr(tokenizer, name)

    monkeypatch.setattr("glm_jax.data.prepare.tokenize.load_tokenizer", lambda _: Unsound())
    message = r"the tokenizer gave the id \d+ at .*corpus.jsonl:0, outside its vocabulary of 128"
    with pytest.raises(UsageError, match=message):
        prepare([corpus], tmp_path / "out/store", tokenizer)


def test_a_failing_disk_is_one_sentence(corpus, tokenizer, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(RunError, match="can't be written to: Not a directory"):
        prepare([corpus], tmp_path / "file/store", tokenizer)


def test_a_store_is_written_and_read_by_url(corpus, tokenizer, tmp_path):
    prepare([corpus], tmp_path / "store", tokenizer)
    url = f"file://{tmp_path}/by_url"
    prepare([f"file://{corpus}"], url, tokenizer, runner=LocalRunner(2))
    for name, content in files_below(tmp_path / "store").items():
        if name.name not in ("metadata.json", "report.json"):  # they name the sources
            assert read_file(f"{url}/{name}") == content
    assert open_store(url).split("train").num_documents > 0
    with pytest.raises(UsageError, match=r"token store at .*/by_url already"):
        prepare([corpus], url, tokenizer)
    prepare([corpus], url, tokenizer, overwrite=True)
    assert files_below(tmp_path / "by_url") == files_below(tmp_path / "store")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_workers_import_neither_jax_nor_tensorflow():
    program = (
        "import sys, glm_jax.data.prepare.run, glm_jax.data.sources.embedded\n"
        "heavy = {'jax', 'tensorflow', 'flax', 'orbax', 'torch', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
