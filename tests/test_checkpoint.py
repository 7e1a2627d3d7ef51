"""Checkpoints give back what was saved, keep what they should, and name what is damaged."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.checkpoint import CheckpointConfig, Checkpoints
from glm_jax.errors import RunError, UsageError
from glm_jax.train.state import TrainState


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
