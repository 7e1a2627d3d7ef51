"""Where a run continues in its data: by examples, and by the count of each stream."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from glm_jax.configure import read_configuration
from glm_jax.data.batches.inputs import Inputs, open_inputs
from glm_jax.data.batches.position import (
    DataPosition,
    StorePosition,
    continued,
    recorded_position,
)
from glm_jax.data.order.mixture import assign_streams
from glm_jax.data.order.shares import num_assigned


def position(example: int, weights: dict[str, float], **values) -> DataPosition:
    stores = tuple(
        StorePosition(f"/stores/{name}", f"content of {name}", number, weight)
        for number, (name, weight) in enumerate(weights.items())
    )
    return DataPosition(example, 0, stores, **values)


def counts(found: DataPosition) -> dict[str, int]:
    return {store.path.removeprefix("/stores/"): store.before for store in found.stores}


@given(st.lists(st.floats(1e-3, 10), min_size=1, max_size=5), st.integers(0, 3000))
def test_streams_are_counted_as_they_are_assigned(weights, count):
    stream, _ = assign_streams(tf.range(count, dtype=tf.int64), weights)
    expected = np.bincount(stream.numpy(), minlength=len(weights))
    assert num_assigned(count, weights) == expected.tolist()


def test_unchanged_data_continue_as_if_nothing_had_happened():
    saved = position(1000, {"a": 0.7, "b": 0.3}, supervised_share=0.1)
    assert continued(saved, position(0, {"a": 0.7, "b": 0.3}, supervised_share=0.1)) == saved


def test_a_record_reads_back():
    saved = position(1000, {"a": 0.7, "b": 0.3}, supervised_share=0.1).advanced(24)
    record = json.loads(json.dumps({"data_position": dataclasses.asdict(saved)}))
    assert recorded_position(record) == saved


def test_an_older_record_counts_steps():
    record = {"step": 60, "configuration": {"data": {"batch_size": 8, "store": "/stores/a"}}}
    assert recorded_position(record).example == 480
    moved = position(0, {"elsewhere": 1.0})
    assert continued(recorded_position(record), moved) == moved.advanced(480)
    mixed = {"batch_size": 8, "store": "", "stores": {"/stores/a": 0.5, "/stores/b": 0.5}}
    assert len(recorded_position({"step": 1, "configuration": {"data": mixed}}).stores) == 2


def test_a_store_is_known_by_its_content_wherever_it_is():
    saved = position(1000, {"a": 1.0})
    moved = dataclasses.replace(saved.stores[0], path="/other/a")
    found = continued(saved, dataclasses.replace(position(0, {"a": 1.0}), stores=(moved,)))
    assert (found.example, found.stores, found.start) == (1000, (moved,), 0)


def test_other_weights_neither_repeat_nor_leave_out():
    found = continued(position(1000, {"a": 0.5, "b": 0.5}), position(0, {"a": 0.9, "b": 0.1}))
    assert counts(found) == {"a": 500, "b": 500}
    assert (found.example, found.start) == (1000, 1000)
    later = continued(found.advanced(100), position(0, {"b": 1.0, "a": 1.0}))
    assert counts(later) == {"b": 510, "a": 590}
    assert [store.number for store in later.stores] == [1, 0]  # so each keeps its order


def test_a_new_store_starts_at_its_first_example_and_a_former_one_is_remembered():
    without = continued(position(1000, {"a": 0.5, "b": 0.5}), position(0, {"a": 1.0}))
    assert counts(without) == {"a": 500, "b": 500} and len(without.mixed) == 1
    back = continued(without.advanced(50), position(0, {"c": 0.5, "b": 0.5}))
    assert counts(back) == {"c": 0, "b": 500, "a": 550}
    assert len({store.number for store in back.stores}) == 3


def test_supervised_examples_have_a_count_of_their_own():
    saved = position(1000, {"a": 1.0}, supervised_share=0.25)
    found = continued(saved, position(0, {"a": 1.0}, supervised_share=0.5))
    assert (found.supervised_before, found.texts_before) == (250, 750)
    none = continued(found.advanced(100), position(0, {"a": 1.0}))
    assert (none.supervised_before, none.texts_before) == (300, 800)
    again = continued(none.advanced(100), position(0, {"a": 1.0}, supervised_share=0.5))
    assert (again.supervised_before, again.texts_before) == (300, 900)


@pytest.fixture(scope="module")
def two_stores(tiny_store, tmp_path_factory) -> dict[str, str]:
    """Two stores of the same tokens whose metadata differ, by name."""
    other = tmp_path_factory.mktemp("stores") / "other"
    shutil.copytree(tiny_store, other)
    metadata = json.loads((other / "metadata.json").read_text())
    (other / "metadata.json").write_text(json.dumps(metadata | {"sources": ["others"]}))
    return {"a": str(tiny_store), "b": str(other)}


def open_with(gin_file, *bindings) -> Inputs:
    config = read_configuration([gin_file], bindings)
    return open_inputs(config.data, config.blanks, config.model.vocab_size)


def read(inputs: Inputs, steps: int) -> np.ndarray:
    """The tokens of all rows of some steps from the position on."""
    size = inputs.data.batch_size
    batches = inputs._read("train", range(size), inputs.position.example, steps)
    return np.concatenate([batch["tokens"] for batch in batches])


def test_a_halved_batch_continues_with_the_next_example(tiny_run):
    inputs = open_with(tiny_run)
    expected = read(inputs, 6)
    half = open_with(tiny_run, "data.batch_size=4")
    half = half.at(continued(inputs.position.advanced(3 * 8), half.position))
    np.testing.assert_array_equal(read(half, 6), expected[24:])


def test_a_mixture_continues_in_every_stream(tiny_run, two_stores, tmp_path):
    lines = [{"context": f"Number {i} is [MASK] .", "answer": "small"} for i in range(100)]
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def mixture(a: float, b: float, share: float) -> Inputs:
        stores = {two_stores["a"]: a, two_stores["b"]: b}
        supervised = [f"data.supervised={tasks}", f"data.supervised_share={share}"]
        return open_with(tiny_run, "data.store=", f"data.stores={stores}", *supervised)

    before = mixture(0.5, 0.5, 0.25)
    seen = read(before, 8)  # 64 examples: 24 of each store, 16 supervised
    after = mixture(0.8, 0.2, 0.5)
    after = after.at(continued(before.position.advanced(64), after.position))
    more = read(after, 8)  # 32 supervised, 25 or 26 of the first store, the rest of the second
    together = np.concatenate([seen, more])
    # Of 48 supervised examples, all are different ones; so are the texts of each store.
    assert len(np.unique(together, axis=0)) == 128
    unchanged = mixture(0.5, 0.5, 0.25)
    unchanged = unchanged.at(continued(before.position.advanced(32), unchanged.position))
    np.testing.assert_array_equal(read(unchanged, 4), seen[32:])


def test_held_out_examples_stay_the_same(tiny_run, two_stores):
    stores = {two_stores["a"]: 0.5, two_stores["b"]: 0.5}
    inputs = open_with(tiny_run, "data.store=", f"data.stores={stores}")
    later = inputs.at(continued(inputs.position.advanced(64), inputs.position))
    expected, found = (one.read_rows("validation", 0, range(8)) for one in (inputs, later))
    np.testing.assert_array_equal(expected["tokens"], found["tokens"])
