"""Texts as the original samples them, beside items recorded from it."""

import itertools
import json
from functools import partial

import numpy as np
import pytest
import tensorflow as tf

from glm_jax.data.blanks.config import BlankConfig, Objective
from glm_jax.data.order.documents import DocumentTexts
from glm_jax.data.order.texts import PythonCalls
from glm_jax.errors import UsageError
from tests.data.order import recorded_items
from tests.data.order.recorded_items import SAMPLER_ENDS, Documents, draw_texts, read_items


@pytest.fixture(scope="module")
def recorded(shared):
    return json.loads((shared / "goldens/d_blocks/block_dataset.json").read_text())


@pytest.fixture(scope="module")
def sentence_end():
    return SAMPLER_ENDS


@pytest.fixture(scope="module")
def make_texts(special):
    return partial(recorded_items.make_texts, special=special)


@pytest.fixture(scope="module")
def ours(recorded, special):
    return draw_texts(recorded, special)


def test_every_recorded_item_comes_up(recorded, ours):
    missing = [n for n, text in enumerate(read_items(recorded)) if text not in set(ours)]
    assert not missing


def test_invariants_of_the_recorded_items_hold_for_all(recorded, ours, special, sentence_end):
    """The form of a text, wherever it was cut."""
    enc, eos = special["ENC"], special["eos"]
    whole = {tuple(document["tokens"]) for document in recorded["documents"]}
    beginnings = {tokens[:n] for tokens in whole for n in range(1, len(tokens) + 1)}
    for text in set(ours):
        assert text[0] == enc and len(text) <= 64
        marks = [i for i, token in enumerate(text) if token == enc]
        parts = [text[i + 1 : j] for i, j in zip(marks, [*marks[1:], len(text)], strict=True)]
        assert all(part[-1] == eos and part[:-1] in whole for part in parts[:-1])
        *_, last = parts
        if len(parts) > 1:
            assert last[:-1] in whole if last[-1] == eos else last in beginnings
        # The end is a document's or a sentence's, or the sentence would leave half of the room.
        room = 64 - (marks[-1] if len(parts) > 1 else 0)
        if last[-1] != eos and not sentence_end[last[-1]]:
            assert 1 + len(last) == room
            assert not sentence_end[list(last[max(room // 2 - 1, 0) :])].any()


def test_documents_come_by_their_length(recorded, ours):
    """How often a text begins with each document, against its tokens; six standard deviations."""
    documents = [tuple(document["tokens"]) for document in recorded["documents"]]
    pairs = [set(itertools.pairwise(tokens)) for tokens in documents]
    distinct = {}
    for number, found in enumerate(pairs):
        same = [n for n, other in enumerate(pairs) if found & other]
        distinct.setdefault(tuple(same), []).append(number)
    total = sum(map(len, documents))
    for same, numbers in distinct.items():
        if set(same) != set(numbers):
            continue  # shares some tokens with another document, but is not the same
        share = sum(len(documents[number]) for number in numbers) / total
        mine = set().union(*(pairs[number] for number in numbers))
        count = sum(tuple(text[1:3]) in mine for text in ours)
        deviation = (share * (1 - share) * len(ours)) ** 0.5
        assert abs(count - share * len(ours)) < 6 * deviation


def test_starts_move_backwards_and_forwards_to_the_nearest_sentence(make_texts):
    """A start k tokens into a sentence goes to its start or to the next one's, half the time each.

    The document has sentences of 20 tokens; every start before its last 63 tokens is as likely.
    """
    document = [10 if i % 20 == 19 else 100 + i % 100 for i in range(243)]
    found = make_texts([document], 20_000)
    first = np.array([text[1] - 100 if text[1] != 10 else 19 for text in found])
    assert set((first % 20).tolist()) == {0}
    # Starts are 0 to 179; moved, they are multiples of 20 from 0 to 180 (which reads as 80).
    share = np.bincount(first // 20, minlength=5) / len(found)
    assert share.sum() == pytest.approx(1)
    # 0 and 100, 20 and 120, ... read alike. The ends get half of a sentence, the middle a whole.
    np.testing.assert_allclose(share, [0.167, 0.222, 0.222, 0.222, 0.167], atol=0.02)


def test_a_document_without_sentences_moves_by_half_a_text(make_texts):
    document = [100 + i % 7 for i in range(5000)]
    found = make_texts([document], 500)
    lengths = np.array([len(text) for text in found])
    # A start that is moved forwards at the end of the document leaves half of a text.
    assert lengths.min() >= 64 - 32 and np.mean(lengths == 64) > 0.98


def test_short_documents_fill_the_text(make_texts):
    found = make_texts([[100, 101], [102], [103, 104, 105]] * 10, 200)
    assert min(map(len, found)) >= 64 - 1  # a single place holds no document
    assert len(set(found)) > 190


def test_texts_are_as_long_as_their_objective_allows(special, sentence_end):
    blanks = BlankConfig(token=1, document=1, single_span_probability=0.3)
    documents = Documents([[100 + i % 50 for i in range(100_000)]], special)
    source = DocumentTexts(
        documents, blanks, enc=special["ENC"], sentence_end=sentence_end,
        sequence_length=128, seed=0,
    )  # fmt: skip
    texts = source(tf.range(500, dtype=tf.int64), PythonCalls())
    length, objective = texts.length.numpy(), texts.objective.numpy()
    multiple = (objective == Objective.TOKEN) & ~texts.single_span.numpy()
    assert multiple.any() and not multiple.all()
    assert np.median(length[~multiple]) == length[~multiple].max() == 126
    assert np.median(length[multiple]) == length[multiple].max() < 120


def test_an_example_does_not_depend_on_its_company(recorded, make_texts):
    documents = [document["tokens"] for document in recorded["documents"]]
    together = make_texts(documents, 40, first=2**40)
    assert [make_texts(documents, 1, first=2**40 + i)[0] for i in range(40)] == together
    assert make_texts(documents, 40, first=2**40, seed=6) != together


def test_no_rows_are_no_texts(make_texts):
    assert make_texts([[100] * 200], 0) == []


def test_a_split_without_text_is_refused(make_texts):
    with pytest.raises(UsageError, match="no document of the split has a token of text"):
        make_texts([[]] * 40, 1)
