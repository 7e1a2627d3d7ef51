"""Checkpoints at URLs that orbax can't write to, on fsspec's file system in memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.checkpoints.checkpoints import Checkpoints
from glm_jax.checkpoints.config import CheckpointConfig
from glm_jax.checkpoints.mirror import Mirror
from glm_jax.errors import RunError, UsageError
from glm_jax.io.files import folder_names, read_file, remove_folder, write_file
from glm_jax.io.paths import resolve_path

RECORD = {"configuration": {"model": {"num_layers": 2}}}


@pytest.fixture
def url(tmp_path):
    """A folder of checkpoints in memory."""
    yield f"memory://{tmp_path.name}/a run ü/checkpoints"
    remove_folder(f"memory://{tmp_path.name}")


def state(step: int) -> dict[str, jax.Array]:
    return {"kernel": jnp.arange(8.0) + step, "bias": jnp.full(3, step, jnp.float32)}


def save(url: str, steps: range, config: CheckpointConfig) -> None:
    with Checkpoints(url, config) as checkpoints:
        for step in steps:
            assert checkpoints.save(step, state(step), RECORD)


def restored(url: str) -> tuple[int, float, list[str]]:
    """The newest intact step, the first number of its state, and what was said."""
    said: list[str] = []
    with Checkpoints(url, CheckpointConfig()) as checkpoints:
        step = checkpoints.latest_intact_step(said.append)
        assert step is not None and checkpoints.read_record(step)["step"] == step
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state(0)
        )
        found = checkpoints.restore(step, shapes)
        return step, float(np.asarray(found["kernel"])[0]), said


def test_what_is_kept_is_kept_there_and_comes_back(url):
    save(url, range(1, 4), CheckpointConfig(keep=2, keep_every=3))
    assert folder_names(url) == ["2", "3"]
    save(url, range(4, 7), CheckpointConfig(keep=2, keep_every=3))
    assert folder_names(url) == ["3", "5", "6"]
    assert restored(url) == (6, 6.0, [])


def test_the_best_is_kept_there_until_another_is_better(url):
    best = 1
    with Checkpoints(url, CheckpointConfig(keep=1), best=lambda: best) as checkpoints:
        for step in range(1, 4):
            assert checkpoints.save(step, state(step), RECORD)
        checkpoints.wait()
        assert folder_names(url) == ["1", "3"]
        best = 3
        checkpoints.delete_superseded()
    assert folder_names(url) == ["3"]


def test_a_damaged_one_is_set_aside_and_the_one_before_it_is_used(url):
    save(url, range(1, 3), CheckpointConfig(keep=2))
    name = f"{url}/2/state/manifest.ocdbt"
    write_file(name, read_file(name)[:-1] + b"?")
    step, value, said = restored(url)
    assert (step, value) == (1, 1.0)
    assert len(said) == 1 and f"{url}/2 is damaged and set aside as 2.damaged" in said[0]
    assert folder_names(url) == ["1", "2.damaged"]


def test_an_upload_that_was_interrupted_is_no_checkpoint(url):
    save(url, range(1, 3), CheckpointConfig(keep=2))
    remove_folder(f"{url}/2/record")
    assert restored(url)[:2] == (1, 1.0)
    save(url, range(2, 3), CheckpointConfig(keep=2))
    assert restored(url)[:2] == (2, 2.0)


def test_an_upload_that_fails_is_a_failed_save(url, monkeypatch):
    save(url, range(1, 2), CheckpointConfig())

    def fail(*_):
        raise PermissionError(13, "Permission denied", "2")

    monkeypatch.setattr(Mirror, "upload", fail)
    with pytest.raises(RunError, match=rf"saving checkpoint {url}/2 failed: .*Permission denied"):
        save(url, range(2, 3), CheckpointConfig())
    assert restored(url)[:2] == (1, 1.0)


def test_several_processes_are_refused(url, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UsageError, match=r"several processes can't be kept at memory://"):
        Mirror(resolve_path(url), None)
