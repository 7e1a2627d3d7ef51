"""Batches of a token stream: their form, their text, and that nothing else decides on them."""

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_jax.data.batches import rows as rows_module
from glm_jax.data.batches.pipeline import batches
from glm_jax.data.batches.rows import MixedIn, RowMaker
from glm_jax.data.blanks.config import BlankConfig, Objective
from glm_jax.data.order.documents import DocumentTexts
from glm_jax.data.order.epochs import EpochOrder, EpochTexts
from glm_jax.data.order.mixture import MixedTexts
from glm_jax.errors import RunError, UsageError
from glm_jax.io.pipeline_options import untuned_options
from tests.conftest import HANG_SECONDS

MIXED = BlankConfig(
    token=0.5,
    sentence=0.3,
    document=0.2,
    block_mask_probability=0.1,
    single_span_probability=0.1,
    task_masks=True,
)


class WithStarts:
    """A split in memory that knows where its documents begin."""

    def __init__(self, split, enc):
        self.num_tokens, self.read = split.num_tokens, split.read
        self._starts = np.flatnonzero(split.ids == enc)

    def document_starts(self):
        return self._starts


class FakeRows:
    """Rows that are filled with their index."""

    def __init__(self, length):
        self.length = length

    def rows(self, example):
        whole = np.repeat(example.astype(np.int32)[:, None], self.length, axis=1)
        return {
            "tokens": whole,
            "targets": whole,
            "loss_mask": np.ones(whole.shape, np.float32),
            "position_ids": np.stack([whole, whole], axis=1),
            "prefix_length": example.astype(np.int32),
            "objective": np.full(len(example), Objective.OTHER, np.int32),
        }


@pytest.fixture(scope="module")
def make_rows(make_split, special, sentence_end):
    """Makes a RowMaker; `order` is "epochs", "documents" or "mixed", which has all there is."""
    default = make_split(20_000, 100, 400)
    other = make_split(5_000, 20, 60, seed=1)

    def make(split=default, order="epochs", **changes):
        values = {
            "blanks": MIXED,
            "special": special,
            "sentence_end": sentence_end,
            "sequence_length": 128,
            "seed": 7,
            **changes,
        }
        blanks, length, seed = (values[name] for name in ("blanks", "sequence_length", "seed"))

        def epochs(split, seed):
            order = EpochOrder(split.num_tokens, blanks, sequence_length=length, seed=seed)
            return EpochTexts(split, order, enc=special["ENC"])

        def documents(split, seed):
            return DocumentTexts(
                WithStarts(split, special["ENC"]), blanks, enc=special["ENC"],
                sentence_end=sentence_end, sequence_length=length, seed=seed,
            )  # fmt: skip

        if order == "mixed":
            texts = MixedTexts([epochs(split, seed), documents(other, seed + 1)], [0.7, 0.3])
            values["mixed_in"] = MixedIn(FakeRows(length), 0.15)
        else:
            texts = {"epochs": epochs, "documents": documents}[order](split, seed)
        return RowMaker(texts, **values)

    return make


@pytest.fixture(scope="module")
def make_batches(make_rows):
    def make(batch_size=8, start_step=0, num_steps=None, rows=None, threads=1, **changes):
        return batches(
            make_rows(**changes),
            batch_size=batch_size,
            first_example=start_step * batch_size,
            num_steps=num_steps,
            rows=rows,
            threads=threads,
        )

    return make


def rows_of(make, examples):
    """The rows of some examples, without a pipeline around them."""
    made = make.blank(*make.choose(tf.constant(list(examples), tf.int64)))
    return {name: values.numpy() for name, values in made.items()}


def take(iterator, count):
    return [
        {name: np.array(values) for name, values in batch.items()}
        for batch in itertools.islice(iterator, count)
    ]


def assert_same(left, right):
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.fixture(scope="module")
def reference(make_batches):
    """The first 33 steps of one reader; an epoch has about 165 windows, 21 steps."""
    return take(make_batches(), 33)


def test_form(reference):
    batch = reference[0]
    form = {name: (values.shape, values.dtype.name) for name, values in batch.items()}
    assert form == {
        "tokens": ((8, 128), "int32"),
        "targets": ((8, 128), "int32"),
        "loss_mask": ((8, 128), "float32"),
        "position_ids": ((8, 2, 128), "int32"),
        "prefix_length": ((8,), "int32"),
        "objective": ((8,), "int32"),
    }


def test_rows_that_do_not_follow_each_other(make_batches, reference):
    strided = take(make_batches(rows=range(1, 8, 3)), 4)
    expected = [{k: v[1::3] for k, v in batch.items()} for batch in reference[:4]]
    assert_same(strided, expected)


def test_starting_at_a_later_step(make_batches, reference):
    """Step 30 lies in the second epoch."""
    assert_same(take(make_batches(start_step=30), 3), reference[30:])


def test_threads_do_not_change_batches(make_batches, reference):
    assert_same(take(make_batches(threads=3), 33), reference)


def test_number_of_steps(make_batches):
    assert len(take(make_batches(start_step=5, num_steps=3), 10)) == 3
    assert len(take(make_batches(start_step=2**40), 2)) == 2


def test_seeds_differ(make_batches, reference):
    (other,) = take(make_batches(seed=8), 1)
    assert (reference[0]["tokens"] != other["tokens"]).any(axis=1).all()


def test_datasets_with_the_same_settings_share_a_graph(make_batches, monkeypatch):
    built, make_batch = [], rows_module.make_batch

    def counted(*texts, **settings):
        built.append(settings["seed"])
        return make_batch(*texts, **settings)

    monkeypatch.setattr(rows_module, "make_batch", counted)
    for seed, start_step in ((31, 0), (31, 5), (32, 0)):
        take(make_batches(seed=seed, start_step=start_step), 1)
    assert built == [31, 32]


@pytest.mark.parametrize(
    ("length", "blanks", "most"),
    [(128, BlankConfig(), 0.042), (512, BlankConfig(), 0.021), (512, MIXED, 0.021)],
)
def test_little_of_a_sequence_is_padding(make_rows, length, blanks, most):
    found = rows_of(make_rows(sequence_length=length, blanks=blanks), range(320))
    used = found["position_ids"].sum(axis=1)[:, 1:] > 0
    assert 1 - used.mean() < most
    assert used[:, : length // 2].all()


@pytest.mark.parametrize("order", ["epochs", "documents", "mixed"])
@settings(deadline=None, max_examples=4)
@given(seed=st.integers(0, 2**40), step=st.integers(0, 2**40), hosts=st.sampled_from([1, 2, 4, 8]))
def test_hosts_share_a_batch(make_rows, order, seed, step, hosts):
    whole = rows_of(make_rows(order=order, seed=seed), range(8 * step, 8 * step + 8))
    size = 8 // hosts
    parts = [
        rows_of(make_rows(order=order, seed=seed), range(start, start + size))
        for start in range(8 * step, 8 * step + 8, size)
    ]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in whole}
    assert_same([joined], [whole])


def test_a_pipeline_of_everything_starts_at_any_step(make_batches, make_rows):
    found = take(make_batches(order="mixed", start_step=30, rows=range(2, 8, 2), threads=2), 3)
    expected = [
        rows_of(make_rows(order="mixed"), range(8 * step + 2, 8 * step + 8, 2))
        for step in range(30, 33)
    ]
    assert_same(found, expected)


def used_length(batch, row):
    return 1 + int(np.flatnonzero(batch["position_ids"][row].any(axis=0))[-1])


def test_every_example_is_text_of_the_stream(make_batches, make_split, special):
    """Putting the blanks back gives, after ENC, tokens that follow each other in the ring."""
    split = make_split(3_000, 20, 90)
    ring = np.concatenate([split.ids, split.ids]).astype(np.int32)
    masks = {special["MASK"], special["sMASK"], special["gMASK"]}
    objectives = set()
    for batch in take(make_batches(split=split, sequence_length=64), 25):
        for i in range(8):
            objectives.add(Objective(batch["objective"][i]))
            prefix = batch["prefix_length"][i]
            spans: dict[int, list[int]] = {}
            for place in range(prefix, used_length(batch, i)):
                spans.setdefault(batch["position_ids"][i, 0, place], []).append(
                    int(batch["targets"][i, place])
                )
            text: list[int] = []
            for place, token in enumerate(batch["tokens"][i, :prefix]):
                span = spans.pop(place, None)
                assert (span is not None) == (int(token) in masks)
                text += [int(token)] if span is None else span
            text = [token for token in text if token != special["eop"]]
            assert not spans
            assert text[0] == special["ENC"]
            stream = np.array(text[1:], np.int32).tobytes()
            found = ring.tobytes().find(stream)
            assert found >= 0 and found % 4 == 0
    assert objectives == {Objective.TOKEN, Objective.SENTENCE, Objective.DOCUMENT}


def test_proportions_and_masks_of_objectives(make_batches, special):
    found = take(make_batches(batch_size=64, blanks=MIXED), 30)
    objective = np.concatenate([batch["objective"] for batch in found])
    share = np.bincount(objective, minlength=3) / len(objective)
    # A tenth are single spans; the others are mixed 5 : 3 : 2. Four standard deviations.
    np.testing.assert_allclose(share, [0.55, 0.27, 0.18], atol=4 * 0.5 / len(objective) ** 0.5)
    tokens = np.concatenate([batch["tokens"] for batch in found])
    for kind, mask in enumerate(("MASK", "sMASK", "gMASK")):
        assert (tokens[objective == kind] == special[mask]).any(axis=1).all()
        assert not (tokens[objective != kind] == special[mask]).any()


def test_block_masks_are_of_token_examples_only(make_batches, special):
    found = take(make_batches(batch_size=64), 20)
    objective = np.concatenate([batch["objective"] for batch in found])
    tokens = np.concatenate([batch["tokens"] for batch in found])
    learned = np.concatenate([batch["loss_mask"] for batch in found]) > 0
    hidden = tokens == special["dBLOCK"]
    assert not hidden[objective != Objective.TOKEN].any()
    assert not hidden[~learned].any()
    of_spans = learned & (tokens != special["sop"]) & (objective == Objective.TOKEN)[:, None]
    assert hidden[of_spans].mean() == pytest.approx(0.1, abs=0.02)


def test_a_second_stream_has_its_share_and_its_own_count(make_rows):
    """15% of all rows are its own."""
    joined = rows_of(make_rows(order="mixed"), range(400))
    other = joined["objective"] == Objective.OTHER
    assert other.sum() in (60, 61)
    np.testing.assert_array_equal(joined["tokens"][other, 5], np.arange(other.sum()))
    np.testing.assert_array_equal(joined["prefix_length"][other], np.arange(other.sum()))
    of_blanks = (joined["loss_mask"][~other] > 0).any(axis=1)
    assert of_blanks.all()


def test_rows_of_one_stream_only(make_rows):
    """A reader may have none of the one stream, or none of the other."""
    make = make_rows(order="mixed")
    kinds = [int(rows_of(make, [example])["objective"][0]) for example in range(12)]
    assert kinds.count(Objective.OTHER) in (1, 2)
    together = rows_of(make, range(12))["objective"]
    assert together.tolist() == kinds


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sequence_length": 8}, "data.sequence_length is 8"),
        ({"rows": range(4, 12)}, "batch of 8 rows"),
        ({"rows": range(0)}, "batch of 8 rows"),
        ({"special": {"MASK": 1}}, "no token sMASK"),
    ],
)
def test_impossible_settings(make_batches, changes, sentence):
    with pytest.raises(UsageError, match=sentence):
        make_batches(**changes)


def test_block_masks_need_their_token(make_batches, special):
    without = {name: id for name, id in special.items() if name != "dBLOCK"}
    with pytest.raises(UsageError, match="no token dBLOCK"):
        make_batches(special=without)


class SlowSplit:
    """A split whose reading takes a while, or fails."""

    def __init__(self, split, failure=None):
        self.num_tokens = split.num_tokens
        self._split, self._failure = split, failure

    def read(self, starts, length):
        time.sleep(0.002)
        if self._failure is not None:
            raise self._failure
        return self._split.read(starts, length)


def test_failures_of_reading_reach_the_user(make_batches, make_split):
    broken = SlowSplit(make_split(1_000, 100, 400), RunError("piece 3 of the store is damaged"))
    with pytest.raises(RunError, match=r"^piece 3 of the store is damaged$"):
        next(make_batches(split=broken))


DROPPING = """
import sys
from tests.data.conftest import MemorySplit
from test_pipeline import SlowSplit
import numpy as np
from glm_jax.data.blanks.config import BlankConfig
from glm_jax.data.order.epochs import EpochOrder, EpochTexts
from glm_jax.data.batches import rows as rows_module
from glm_jax.data.batches.pipeline import batches
from glm_jax.data.batches.rows import RowMaker

special = {"eos": 0, "ENC": 1, "MASK": 2, "sop": 3, "eop": 4}
split = SlowSplit(MemorySplit(np.arange(5000, dtype=np.int32) % 90 + 10))
kept = []
blanks = BlankConfig(token=0, document=1)
order = EpochOrder(split.num_tokens, blanks, sequence_length=32, seed=0)
for count in range(12):
    make = RowMaker(EpochTexts(split, order, enc=1), blanks, special, np.zeros(100, bool), 32, 0)
    iterator = batches(make, batch_size=2, threads=1 + count % 2)
    for _ in range(count % 3):
        next(iterator)
    if count % 4 == 3:
        kept.append(iterator)
    del iterator
sys.exit(3)
"""


@pytest.mark.slow
def test_dropped_iterators_do_not_hang():
    """Neither when they are dropped while reading, nor when the interpreter exits."""
    here, root = Path(__file__).parent, Path(__file__).parents[3]
    path = os.pathsep.join([str(here), str(root), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", DROPPING],
        env={**os.environ, "PYTHONPATH": path},
        timeout=HANG_SECONDS,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr


def test_dropping_iterators_takes_no_time():
    """The thread that tunes pipelines would sleep on, and with it the whole process."""
    iterators = []
    for _ in range(50):
        dataset = tf.data.Dataset.range(1_000_000).map(lambda x: x + 1, num_parallel_calls=1)
        iterators.append(dataset.with_options(untuned_options()).prefetch(2).as_numpy_iterator())
        next(iterators[-1])
    time.sleep(2)  # by now a tuning thread would sleep for seconds at a time
    begin = time.monotonic()
    while iterators:
        del iterators[-1]
    assert time.monotonic() - begin < 25  # such a thread would take half a second for each
