"""From text to a finished store: what gets in, determinism, and what interruptions leave."""

import gzip
import json
import os
import signal
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from glm_jax.data import prepare as prepare_module
from glm_jax.data.corpus import document_of
from glm_jax.data.prepare import prepare, prepare_documents
from glm_jax.data.store import open_store
from glm_jax.errors import RunError, UsageError
from glm_jax.tokenizer import load_tokenizer, train_sentencepiece

TEXTS = [f"Document {number}.\n\nIt says [MASK] and {number**3}." * 3 for number in range(300)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_sentencepiece(TEXTS, tmp_path_factory.mktemp("tokenizer"), vocab_size=330)


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


def stored_documents(path, split):
    opened = open_store(path).split(split)
    starts = [*opened.document_starts().tolist(), opened.num_tokens]
    return [
        opened.read(np.array([start]), end - start)[0].tolist() for start, end in pairwise(starts)
    ]


def files_below(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


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


def test_the_store_is_the_same_for_any_number_of_workers(corpus, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_module, "BATCH_DOCUMENTS", 7)
    for workers in (1, 2, 3):
        prepare([corpus], tmp_path / str(workers), tokenizer, workers=workers)
    files = files_below(tmp_path / "1")
    assert len(files) > 8
    assert files_below(tmp_path / "2") == files
    assert files_below(tmp_path / "3") == files


def test_a_document_stays_in_its_split_when_the_corpus_grows(tokenizer, tmp_path):
    documents = [document_of(text, "test") for text in TEXTS]
    for name, part in {"small": documents[::2], "large": documents[::-1]}.items():
        prepare_documents(part, tmp_path / name, tokenizer, validation_fraction=0.3)
    for split in ("train", "validation"):
        small, large = (
            {tuple(ids) for ids in stored_documents(tmp_path / name, split)}
            for name in ("small", "large")
        )
        assert small < large


def test_parts_of_a_long_document_stay_in_one_split(tokenizer, tmp_path):
    for number in range(30):
        (tmp_path / f"{number}.txt").write_text(f"Paragraph of {number}.\n\n" * 30)
    report = prepare(
        [tmp_path],
        tmp_path / "out/store",
        tokenizer,
        validation_fraction=0.3,
        maximum_characters=100,
    )
    assert report.incidents.split_documents == 30
    found = {
        split: {
            tokenizer.decode(ids).split("Paragraph of ")[1].split(".")[0]
            for ids in stored_documents(tmp_path / "out/store", split)
        }
        for split in ("train", "validation")
    }
    assert len(found["train"] | found["validation"]) == 30
    assert not found["train"] & found["validation"]


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
        "documents_with_bad_utf8": 1,
        "split_documents": 0,
        "bad_json_lines": 1,
        "lines_without_text": 0,
        "unreadable_files": [str(tmp_path / "cut.txt.gz")],
    }


def test_progress_grows_to_the_whole(corpus, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_module, "BATCH_DOCUMENTS", 100)
    seen = []
    report = prepare(
        [corpus], tmp_path / "store", tokenizer, progress=lambda *done: seen.append(done)
    )
    assert [documents for documents, _ in seen] == [100, 200, 300]
    assert seen[-1] == (report.documents, report.text_bytes)


def test_a_store_is_replaced_only_when_asked_and_only_by_a_whole_one(corpus, tokenizer, tmp_path):
    out = tmp_path / "store"
    prepare([corpus], out, tokenizer, validation_fraction=0.1)
    before = files_below(out)
    with pytest.raises(UsageError, match="already"):
        prepare([corpus], out, tokenizer)
    with pytest.raises(UsageError, match="validation split would be empty"):
        prepare([corpus], out, tokenizer, validation_fraction=1e-9, overwrite=True)
    assert files_below(out) == before
    prepare([corpus], out, tokenizer, validation_fraction=0.3, overwrite=True)
    assert files_below(out) != before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_other_folders_and_files_are_never_replaced(corpus, tokenizer, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/dear.txt").write_text("keep me")
    for out in (tmp_path / "letters", corpus):
        with pytest.raises(UsageError, match="is not a token store"):
            prepare([corpus], out, tokenizer, overwrite=True)
    assert (tmp_path / "letters/dear.txt").read_text() == "keep me"
    (tmp_path / "empty").mkdir()
    prepare([corpus], tmp_path / "empty", tokenizer)
    assert open_store(tmp_path / "empty").split("train").num_documents > 0


@pytest.mark.parametrize(
    "texts, options, message",
    [
        (TEXTS, {"validation_fraction": 0.0}, "validation_fraction is 0.0"),
        (TEXTS, {"validation_fraction": 1.0}, "validation_fraction is 1.0"),
        (TEXTS, {"workers": 0}, "workers is 0"),
        (TEXTS[:1], {"validation_fraction": 0.001}, "validation split would be empty"),
        (TEXTS[:1], {"validation_fraction": 0.999}, "train split would be empty"),
        ([], {}, "no document"),
    ],
)
def test_impossible_demands_are_one_sentence(tokenizer, tmp_path, texts, options, message):
    documents = [document_of(text, "test") for text in texts]
    with pytest.raises(UsageError, match=message):
        prepare_documents(documents, tmp_path / "store", tokenizer, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_disk_is_one_sentence(tokenizer, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(RunError, match="cannot be written"):
        prepare_documents(
            [document_of("text", "test")], tmp_path / "file/store", tokenizer, workers=1
        )


ENDLESS = """
import itertools, sys
from glm_jax.data.corpus import document_of
from glm_jax.data.prepare import prepare_documents
from glm_jax.tokenizer import load_tokenizer
if __name__ == "__main__":
    endless = (document_of(f"document {number}", "test") for number in itertools.count())
    prepare_documents(
        endless, sys.argv[1], load_tokenizer(sys.argv[2]), workers=2,
        overwrite=True, progress=lambda *done: print(*done, flush=True),
    )
"""


@pytest.mark.parametrize("stored_before", [False, True])
def test_a_killed_run_leaves_no_store_and_the_next_one_cleans_up(
    corpus, tokenizer, tmp_path, stored_before
):
    out = tmp_path / "stores/store"
    if stored_before:
        prepare([corpus], out, tokenizer)
        before = files_below(out)
    tokenizer.save(tmp_path / "tokenizer")
    (tmp_path / "endless.py").write_text(ENDLESS)
    command = [sys.executable, tmp_path / "endless.py", out, tmp_path / "tokenizer"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(5):
        assert process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    assert len([path for path in out.parent.iterdir() if "unfinished" in path.name]) == 1
    if stored_before:
        assert files_below(out) == before
    else:
        with pytest.raises(UsageError, match="there is no token store"):
            open_store(out)
    report = prepare([corpus], out, tokenizer, overwrite=stored_before)
    assert list(out.parent.iterdir()) == [out]
    assert open_store(out).split("train").num_tokens == report.splits["train"]["num_tokens"]
    assert load_tokenizer(out).fingerprint == tokenizer.fingerprint


def test_a_running_prepare_is_left_alone_by_another(corpus, tokenizer, tmp_path):
    out = tmp_path / "store"

    def documents():
        yield document_of("from the outer run", "test")
        prepare([corpus], out, tokenizer)  # finds the outer run's folder in use
        yield from (document_of(text, "test") for text in TEXTS)

    with pytest.raises(UsageError, match="already"):
        prepare_documents(documents(), out, tokenizer)
    assert open_store(out).split("train").num_documents > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.jsonl", "store"]


def test_a_store_about_to_be_replaced_when_the_run_was_killed_comes_back(
    corpus, tokenizer, tmp_path
):
    out = tmp_path / "store"
    prepare([corpus], out, tokenizer)
    before = files_below(out)
    out.rename(tmp_path / ".store.replaced")  # as a kill between the two renames leaves it
    with pytest.raises(UsageError, match="already"):
        prepare([corpus], out, tokenizer)
    assert files_below(out) == before


def test_workers_import_neither_jax_nor_tensorflow():
    program = (
        "import sys, glm_jax.data.prepare, glm_jax.data.embedded\n"
        "print(sorted({'jax', 'tensorflow', 'flax', 'orbax'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
