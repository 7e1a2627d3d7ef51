"""Long documents divided between splits: where, in which shares, and what stays when they grow."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_jax.data.sources import stretches
from glm_jax.data.sources.document import ReadOptions, ReadStats, documents_of
from glm_jax.data.sources.stretches import (
    HEAD_STRETCHES,
    STRETCH_CHARACTERS,
    TEST,
    TRAIN,
    VALIDATION,
    Shares,
    split_stretches,
)

# Short stretches, so that small texts have many.
SHORT = 16
TEXT = st.text(alphabet="ab \n.。」\r", max_size=400)


@pytest.fixture
def short_stretches(monkeypatch):
    monkeypatch.setattr(stretches, "STRETCH_CHARACTERS", SHORT)


@given(text=TEXT, more=TEXT, block=st.integers(1, 50))
def test_text_that_is_appended_moves_no_border(text, more, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stretches, "STRETCH_CHARACTERS", SHORT)
        before = list(split_stretches([text]))
        after = list(split_stretches([text + more]))
        in_blocks = [text[at : at + block] for at in range(0, len(text), block)]
        assert list(split_stretches(in_blocks)) == before
    assert "".join(before) == text.lstrip()
    assert all(len(part) <= 2 * SHORT for part in before)
    assert all(len(part) >= SHORT for part in before[:-1])
    if before:
        assert after[: len(before) - 1] == before[:-1]
        assert after[len(before) - 1].startswith(before[-1])


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("a" * 17 + "\n\nb\nb. b" + "b" * 40, "a" * 17 + "\n\n"),
        ("a" * 17 + ". a\n\n" + "b" * 40, "a" * 17 + ". a\n"),
        ("a" * 17 + ". a" + "\n" + "b" * 40, "a" * 17 + ". a\n"),
        ("a" * 18 + " a a a. b b b" + "b" * 40, "a" * 18 + " a a a. "),
        ("一" * 25 + "。」二二" + "三" * 40, "一" * 25 + "。」"),
        ("a" * 29 + " b" + "b" * 40, "a" * 29 + " "),
        ("a" * 99, "a" * 32),
    ],
)
def test_a_stretch_ends_at_the_best_border_that_comes(short_stretches, text, first):
    assert next(split_stretches([text])) == first


@pytest.mark.parametrize("validation", [1e-9, 0.01, 0.05, 1 / 3, 0.5, 0.9])
@pytest.mark.parametrize("test", [0.0, 0.02, 0.05])
def test_shares_are_kept_and_every_split_has_a_stretch_early(validation, test):
    shares = Shares(validation, test)
    split = np.array([shares.split_of(HEAD_STRETCHES + place) for place in range(20_000)])
    assert [shares.split_of(index) for index in range(HEAD_STRETCHES)] == [None] * HEAD_STRETCHES
    wanted = {TRAIN: 1 - validation - test, VALIDATION: validation, TEST: test}
    for name, share in wanted.items():
        assert abs(np.sum(split == name) - share * len(split)) <= 2 + 2 * (share > 0)
    assert split[:2].tolist() == [VALIDATION, TRAIN]
    assert (TEST in split[: int(3 / (1 - validation))]) == (test > 0)
    alone = np.array([Shares(validation).split_of(HEAD_STRETCHES + p) for p in range(20_000)])
    assert np.array_equal(split == VALIDATION, alone == VALIDATION)


def divided(text, shares, maximum=1 << 20):
    stats = ReadStats()
    options = ReadOptions(maximum_characters=maximum, shares=shares)
    return list(documents_of([text], "here", options, stats)), stats


def test_a_document_is_divided_into_runs_without_overlap_or_loss():
    text = "".join(f"Sentence {number} of a book.\n" for number in range(20_000))
    found, stats = divided(text, Shares(0.05, 0.05))
    assert stats == ReadStats(divided_documents=1)
    assert "\n".join(document.text for document in found) == text.strip()
    assert len({document.digest for document in found}) == 1
    assert [document.split for document in found[:5]] == [None, VALIDATION, TRAIN, TEST, TRAIN]
    sizes = {
        split: sum(len(document.text) for document in found if document.split == split)
        for split in (VALIDATION, TEST)
    }
    assert all(0.04 < size / len(text) < 0.06 for size in sizes.values())
    parts, stats = divided(text, Shares(0.05, 0.05), maximum=5000)
    assert stats == ReadStats(divided_documents=1, split_documents=1)
    assert "\n".join(document.text for document in parts) == text.strip()


def test_a_short_document_is_left_to_its_digest_which_stays_when_it_grows():
    text = "Words of a sentence. " * 1000
    digests = set()
    for length in (2 * STRETCH_CHARACTERS, 5 * STRETCH_CHARACTERS, len(text)):
        found, stats = divided(text[:length], Shares(0.1))
        digests.add(found[0].digest)
        assert found[0].split is None
        assert stats.divided_documents == (length > 4 * STRETCH_CHARACTERS)
    assert len(digests) == 1
    assert divided("", Shares(0.1)) == ([], ReadStats(empty_documents=1))
