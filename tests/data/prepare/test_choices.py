"""Which documents are kept, and in which split."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_jax.data.prepare.duplicates import first_occurrences
from glm_jax.data.prepare.run import prepare
from glm_jax.data.prepare.runner import LocalRunner
from glm_jax.data.prepare.splits import BY_DIGEST, SplitFractions
from glm_jax.errors import UsageError
from tests.data.prepare.stores import TEXTS, files_below, stored_documents, write_jsonl

FILTER = """
def odd(document):
    return int(document.text.split()[1].rstrip(".")) % 2 == 1

def failing(document):
    return 1 / 0
"""


def test_a_document_stays_in_its_split_when_the_corpus_grows(tokenizer, tmp_path):
    for name, part in {"small": TEXTS[::2], "large": TEXTS[::-1]}.items():
        source = write_jsonl(tmp_path / f"{name}.jsonl", part)
        prepare([source], tmp_path / name, tokenizer, validation_fraction=0.3, test_fraction=0.2)
    for split in ("train", "validation", "test"):
        small, large = (
            {tuple(ids) for ids in stored_documents(tmp_path / name, split)}
            for name in ("small", "large")
        )
        assert small < large


def test_a_test_split_takes_from_train_only():
    digests = np.random.default_rng(0).integers(0, 1 << 63, 20_000).astype(np.uint64) * 2
    free = np.full(len(digests), BY_DIGEST, np.int8)
    without = SplitFractions(0.1).of(digests, free)
    with_test = SplitFractions(0.1, 0.2).of(digests, free)
    assert SplitFractions(0.1).names == ("train", "validation")
    assert SplitFractions(0.1, 0.2).names == ("train", "validation", "test")
    assert np.array_equal(without == 1, with_test == 1)
    assert abs(np.mean(with_test == 1) - 0.1) < 0.01
    assert abs(np.mean(with_test == 2) - 0.2) < 0.015


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


def test_duplicates_are_dropped_on_request_and_the_first_stays(tokenizer, tmp_path, small_shards):
    texts = [TEXTS[place] for place in np.random.default_rng(0).integers(0, 100, 400)]
    source = write_jsonl(tmp_path / "corpus.jsonl", texts)
    whole = prepare([source], tmp_path / "whole", tokenizer, validation_fraction=0.2)
    assert (whole.documents, whole.duplicates) == (400, 0)
    for workers in (1, 2):
        report = prepare(
            [source],
            tmp_path / str(workers),
            tokenizer,
            validation_fraction=0.2,
            drop_duplicates=True,
            runner=LocalRunner(workers),
        )
    assert files_below(tmp_path / "1") == files_below(tmp_path / "2")
    different = list(dict.fromkeys(texts))
    assert (report.documents, report.duplicates) == (len(different), 400 - len(different))
    assert report.text_bytes == sum(len(text.encode()) for text in different)
    found = [
        tokenizer.decode(ids[1:-1])
        for split in ("train", "validation")
        for ids in stored_documents(tmp_path / "1", split)
    ]
    assert sorted(found) == sorted(different)
    train = stored_documents(tmp_path / "1", "train")
    kept = [text for text in different if text in {tokenizer.decode(ids[1:-1]) for ids in train}]
    assert [tokenizer.decode(ids[1:-1]) for ids in train] == kept


@settings(deadline=None, max_examples=50)
@given(
    digests=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), max_size=60),
    at_once=st.integers(1, 20),
    block=st.integers(1, 20),
)
def test_first_occurrences_are_found_whatever_fits_into_memory(
    tmp_path_factory, digests, at_once, block
):
    seen = set()
    expected = [digest not in seen and not seen.add(digest) for digest in digests]
    array = np.array(digests, np.uint64).reshape(-1, 2)
    blocks = [array[start : start + block] for start in range(0, len(array), block)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("glm_jax.data.prepare.duplicates.DOCUMENTS_AT_ONCE", at_once)
        first = first_occurrences(blocks, len(array), tmp_path_factory.mktemp("first"))
    assert first.tolist() == expected


def test_a_filter_says_which_documents_are_kept(corpus, tokenizer, tmp_path):
    (tmp_path / "mine.py").write_text(FILTER)
    report = prepare(
        [corpus], tmp_path / "store", tokenizer, filter=f"{tmp_path}/mine.py:odd",
        validation_fraction=0.2, runner=LocalRunner(2),
    )  # fmt: skip
    assert (report.documents, report.incidents.filtered_documents) == (150, 150)
    train = stored_documents(tmp_path / "store", "train")
    assert all(int(tokenizer.decode(ids[1:-1]).split()[1][:-1]) % 2 for ids in train)


@pytest.mark.parametrize(
    "name, message",
    [
        ("no_such_module:f", "no_such_module cannot be imported"),
        ("mine.py:no_such", "mine.py has no function 'no_such'"),
        ("function", "expected MODULE:FUNCTION or FILE.py:FUNCTION"),
        ("mine.py:failing", "failed at .*corpus.jsonl:0: ZeroDivisionError"),
    ],
)
def test_troubles_of_a_filter_are_one_sentence(
    corpus, tokenizer, tmp_path, monkeypatch, name, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(FILTER)
    with pytest.raises(UsageError, match=message) as caught:
        prepare([corpus], tmp_path / "out/store", tokenizer, filter=name)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
