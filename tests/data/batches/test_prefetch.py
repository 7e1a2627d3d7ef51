"""Items made ahead of their use."""

import threading

import pytest

from glm_jax.data.batches.pipeline import Prefetched
from tests.conftest import HANG_SECONDS


def test_items_come_in_order_and_end():
    assert list(Prefetched(iter(range(20)), 3)) == list(range(20))
    assert list(Prefetched(iter([]), 1)) == []


def test_items_are_made_before_they_are_asked_for_but_no_more_than_that():
    made = []
    enough = threading.Event()

    def items():
        for number in range(100):
            made.append(number)
            if len(made) == 3:
                enough.set()
            yield number

    prefetched = Prefetched(items(), 2)
    assert next(prefetched) == 0
    assert enough.wait(HANG_SECONDS)
    assert made == [0, 1, 2]


def test_a_failure_comes_where_its_item_would():
    def items():
        yield 1
        raise ValueError("broken")

    prefetched = Prefetched(items(), 2)
    assert next(prefetched) == 1
    with pytest.raises(ValueError, match="broken"):
        next(prefetched)
    with pytest.raises(StopIteration):
        next(prefetched)
