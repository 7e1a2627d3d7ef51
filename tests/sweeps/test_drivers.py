"""Which drivers of a study are still there."""

from __future__ import annotations

import pytest
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection

from glm_jax.sweeps.drivers import Drivers


@pytest.fixture
def storage() -> InMemoryStorage:
    made = InMemoryStorage()
    made.create_new_study([StudyDirection.MINIMIZE], "study")
    return made


def record_elsewhere(storage: InMemoryStorage, beats: int) -> str:
    record = {"host": "h", "process": 1, "machine": "another", "started": "1", "beats": beats}
    storage.set_study_user_attr(0, "driver:other", record)
    return "other"


def test_a_driver_of_another_machine_is_lost_when_it_is_silent(storage):
    now = 0.0
    drivers = Drivers(storage, 0, silence=90, clock=lambda: now)
    token = record_elsewhere(storage, beats=5)
    assert drivers.is_alive(token)
    now = 80.0
    assert drivers.is_alive(token)
    record_elsewhere(storage, beats=6)
    assert drivers.is_alive(token)
    now = 169.0
    assert drivers.is_alive(token)
    now = 171.0
    assert not drivers.is_alive(token)


def test_a_driver_of_this_machine_is_looked_up(storage):
    one, two = Drivers(storage, 0), Drivers(storage, 0)
    one.beat()
    assert two.is_alive(one.token) and one.is_alive(one.token)
    record = dict(storage.get_study_user_attrs(0)[f"driver:{one.token}"])
    storage.set_study_user_attr(0, f"driver:{one.token}", {**record, "started": "0"})
    assert not two.is_alive(one.token)
    assert not two.is_alive("never there")
    assert two.describe("never there") == "a lost driver"


def test_beats_are_not_written_more_often_than_due(storage):
    now = 0.0
    drivers = Drivers(storage, 0, clock=lambda: now)
    for moment in (0.0, 5.0, 9.0, 11.0):
        now = moment
        drivers.beat()
    assert storage.get_study_user_attrs(0)[f"driver:{drivers.token}"]["beats"] == 2
