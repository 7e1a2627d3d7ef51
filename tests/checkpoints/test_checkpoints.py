"""Checkpoints give back what was saved, keep what they should, and name what is damaged."""

import json
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.checkpoints.checkpoints import Checkpoints
from glm_jax.checkpoints.checksums import SummedPyTreeHandler, record_sum
from glm_jax.checkpoints.config import CheckpointConfig
from glm_jax.errors import RunError, UsageError
from glm_jax.train.step import TrainState
from tests.conftest import HANG_SECONDS


def state(step: int) -> TrainState:
    params = {
        "kernel": jnp.arange(64.0).reshape(8, 8) + step,
        "bias": jnp.full(8, step, jnp.float32),
    }
    moments = jax.tree.map(jnp.square, params)
    return TrainState(
        jnp.asarray(step), jnp.asarray(0), params, (moments, {"count": jnp.asarray(step)})
    )


def shapes(tree):
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), tree)


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of steps 1 to 4, of which the last two are kept."""
    with Checkpoints(tmp_path / "checkpoints", CheckpointConfig(keep=2)) as checkpoints:
        for step in range(1, 5):
            checkpoints.save(step, state(step), {"configuration": {"model": {"num_layers": 2}}})
    return tmp_path / "checkpoints"


def test_a_state_comes_back_bit_for_bit(folder):
    restored = Checkpoints(folder).restore(4, shapes(state(0)))
    assert isinstance(restored, TrainState)
    for expected, found in zip(jax.tree.leaves(state(4)), jax.tree.leaves(restored), strict=True):
        np.testing.assert_array_equal(expected, found)


def test_parameters_can_be_read_alone(folder):
    restored = Checkpoints(folder).restore(4, {"params": shapes(state(0).params)})
    np.testing.assert_array_equal(restored["params"]["kernel"], state(4).params["kernel"])


def test_the_newest_are_kept_with_their_record(folder):
    checkpoints = Checkpoints(folder)
    assert checkpoints.latest_step() == 4
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["3", "4"]
    record = checkpoints.read_record(3)
    assert record["step"] == 3 and record["configuration"] == {"model": {"num_layers": 2}}
    assert record["parameter_layout"]


def test_saving_overlaps_with_changing_the_saved_arrays(tmp_path):
    """A donated buffer that is used again must not reach the checkpoint still being written."""
    add = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    current = {"params": jnp.zeros((512, 512))}
    with Checkpoints(tmp_path / "checkpoints", CheckpointConfig(keep=9)) as checkpoints:
        for step in range(1, 5):
            checkpoints.save(step, current, {})
            current = add(add(current))
    reader = Checkpoints(tmp_path / "checkpoints")
    for step in range(1, 5):
        restored = reader.restore(step, {"params": shapes(current["params"])})
        np.testing.assert_array_equal(restored["params"], np.full((512, 512), 2.0 * (step - 1)))


def test_another_parameter_layout_is_refused(folder):
    path = folder / "4" / "record" / "metadata"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"parameter_layout": "unscanned"}))
    with pytest.raises(UsageError, match="parameter layout 'unscanned'"):
        Checkpoints(folder).read_record(4)


def test_an_unreadable_record_is_named(folder):
    (folder / "4" / "record" / "metadata").write_text('{"step": 4,')
    with pytest.raises(RunError, match=r"record of checkpoint .*4 can't be read"):
        Checkpoints(folder).read_record(4)


def test_a_damaged_checkpoint_is_named(folder):
    shutil.rmtree(folder / "4" / "state")
    with pytest.raises(RunError, match=r"checkpoint .*4 can't be restored"):
        Checkpoints(folder).restore(4, shapes(state(0)))


def test_an_unfinished_save_is_not_seen(folder):
    shutil.copytree(folder / "4", folder / "9.orbax-checkpoint-tmp")
    assert Checkpoints(folder).latest_step() == 4


def damage(path, how) -> None:
    if how == "deleted":
        path.unlink()
        return
    content = bytearray(path.read_bytes())
    if how == "cut":
        content = content[: len(content) // 2]
    else:
        content[len(content) // 3] ^= 4
    path.write_bytes(content)


def bytes_below(path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


# Files without which, or with another content of which, a checkpoint restores all the same.
UNUSED = {"commit_success.txt", "_CHECKPOINT_METADATA"}


@pytest.mark.parametrize("how", ["changed", "cut", "deleted"])
def test_any_damaged_file_gives_the_checkpoint_before(folder, tmp_path, how):
    names = sorted(
        str(path.relative_to(folder / "4"))
        for path in (folder / "4").rglob("*")
        if path.is_file() and path.name not in UNUSED
    )
    assert "record/metadata" in names and any(name.startswith("state/ocdbt") for name in names)
    for number, name in enumerate(names):
        copy = tmp_path / str(number)
        shutil.copytree(folder, copy)
        damage(copy / "4" / name, how)
        damaged = bytes_below(copy / "4")
        said = []
        checkpoints = Checkpoints(copy)
        assert checkpoints.latest_intact_step(said.append) == 3, name
        assert len(said) == 1 and f"{copy}/4 is damaged and set aside as 4.damaged" in said[0]
        assert checkpoints.latest_step() == 3
        assert bytes_below(copy / "4.damaged") == damaged  # nothing of it is lost
    restored = checkpoints.restore(3, shapes(state(0)))
    np.testing.assert_array_equal(restored.params["kernel"], state(3).params["kernel"])


def test_the_sentence_names_the_damaged_file(folder):
    damage(folder / "4" / "state" / "_METADATA", "cut")
    said = []
    Checkpoints(folder).latest_intact_step(said.append)
    assert "state/_METADATA has " in said[0] and " bytes in place of " in said[0]


def test_a_checkpoint_may_be_damaged_twice(folder):
    config = CheckpointConfig(keep=2)
    for expected in ("4.damaged", "4.damaged-2"):
        damage(folder / "4" / "state" / "_METADATA", "changed")
        with Checkpoints(folder, config) as checkpoints:
            assert checkpoints.latest_intact_step(lambda _: None) == 3
            assert (folder / expected).is_dir()
            checkpoints.save(4, state(4), {})
    assert sorted(p.name for p in folder.iterdir()) == ["3", "4", "4.damaged", "4.damaged-2"]


def test_a_run_whose_checkpoints_are_all_damaged_is_not_begun_anew(folder):
    for step in (3, 4):
        damage(folder / str(step) / "state" / "manifest.ocdbt", "changed")
    for _ in range(2):  # nor at the next start
        with pytest.raises(RunError, match=r"every checkpoint in .* \(3\.damaged, 4\.damaged\)"):
            Checkpoints(folder).latest_intact_step(lambda _: None)


def test_a_folder_without_checkpoints_has_no_newest(tmp_path):
    with Checkpoints(tmp_path / "checkpoints", CheckpointConfig()) as checkpoints:
        assert checkpoints.latest_intact_step(pytest.fail) is None


def test_checkpoints_from_before_there_were_checksums_are_taken_as_they_are(folder):
    shutil.rmtree(folder / "4" / "state" / "checksums")
    path = folder / "4" / "record" / "metadata"
    record = json.loads(path.read_text())
    del record["checksums"], record["record_checksum"]
    path.write_text(json.dumps(record))
    assert Checkpoints(folder).latest_intact_step(pytest.fail) == 4


def test_another_layout_is_no_damage(folder):
    path = folder / "4" / "record" / "metadata"
    record = json.loads(path.read_text()) | {"parameter_layout": "unscanned"}
    del record["record_checksum"]
    path.write_text(json.dumps(record | {"record_checksum": record_sum(record)}))
    checkpoints = Checkpoints(folder)
    assert checkpoints.latest_intact_step(pytest.fail) == 4
    with pytest.raises(UsageError, match="parameter layout 'unscanned'"):
        checkpoints.read_record(4)


def test_a_layout_that_changed_on_the_disk_is_damage(folder):
    path = folder / "4" / "record" / "metadata"
    path.write_text(path.read_text().replace("scanned-1", "scanned-3"))
    told = []
    assert Checkpoints(folder).latest_intact_step(told.append) != 4
    assert "record/metadata has changed since it was written" in told[0]


def test_some_steps_are_kept_for_good(tmp_path):
    config = CheckpointConfig(keep=2, keep_every=3)
    with Checkpoints(tmp_path / "checkpoints", config) as checkpoints:
        for step in range(1, 9):
            checkpoints.save(step, state(step), {})
    steps = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert steps == [3, 6, 7, 8]


def test_what_a_kill_before_the_deletions_left_is_deleted(tmp_path):
    folder = tmp_path / "checkpoints"
    with Checkpoints(folder, CheckpointConfig(keep=9)) as checkpoints:
        for step in range(1, 6):
            checkpoints.save(step, state(step), {})
    with Checkpoints(folder, CheckpointConfig(keep=1), best=lambda: 2) as checkpoints:
        checkpoints.delete_superseded()
        assert checkpoints.latest_step() == 5
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["2", "5"]


@pytest.mark.parametrize("name", ["every", "keep", "keep_every"])
def test_an_impossible_policy_is_refused(name):
    with pytest.raises(UsageError, match=rf"checkpoint\.{name} is -1"):
        CheckpointConfig(**{name: -1})


@pytest.fixture
def slow_disk(monkeypatch):
    """An event without which no save is completed."""
    ready = threading.Event()
    original = SummedPyTreeHandler.finalize

    def finalize(self, directory):
        assert ready.wait(HANG_SECONDS)
        original(self, directory)

    monkeypatch.setattr(SummedPyTreeHandler, "finalize", finalize)
    return ready


def test_training_goes_on_while_a_save_is_under_way(tmp_path, slow_disk):
    with Checkpoints(tmp_path / "checkpoints", CheckpointConfig()) as checkpoints:
        assert checkpoints.save(1, state(1), {}, wait_for_previous=False)
        assert not checkpoints.save(2, state(2), {}, wait_for_previous=False)  # and does not wait
        assert checkpoints.finished_saves() == []
        assert checkpoints.latest_step() is None or not (tmp_path / "checkpoints" / "1").exists()
        slow_disk.set()
        checkpoints.save(3, state(3), {})  # the last of a run waits
        checkpoints.wait()
        finished = checkpoints.finished_saves()
        assert [save.step for save in finished] == [1, 3]
        assert all(0 < save.blocked_seconds < save.complete_seconds for save in finished)
        assert checkpoints.finished_saves() == []


def test_a_save_that_fails_is_told(tmp_path, monkeypatch):
    def finalize(self, directory):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SummedPyTreeHandler, "finalize", finalize)
    with Checkpoints(tmp_path / "checkpoints", CheckpointConfig()) as checkpoints:
        checkpoints.save(1, state(1), {})
        with pytest.raises(RunError, match=r"saving checkpoint .*/1 failed: .*No space left"):
            checkpoints.wait()
