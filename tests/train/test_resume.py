"""A run that resumes with other data says so, and continues with the next example."""

import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from glm_jax.checkpoints.checkpoints import Checkpoints
from glm_jax.configure import read_configuration
from glm_jax.data.batches.position import DataPosition, recorded_position
from glm_jax.train.pretrain import pretrain


@pytest.fixture(scope="module")
def begun_elsewhere(write_tiny_run, tmp_path_factory) -> Path:
    """The folder of a run of two steps of 8 examples; not to be changed."""
    folder = tmp_path_factory.mktemp("begun")
    config = read_configuration([write_tiny_run(folder)], ["train.num_steps=2"])
    pretrain(config, Console(file=io.StringIO()))
    return folder / "run"


@pytest.fixture
def begun(begun_elsewhere, tmp_path) -> Path:
    """A run of two steps of 8 examples."""
    return Path(shutil.copytree(begun_elsewhere, tmp_path / "run"))


def resume(run_folder: Path, *bindings: str) -> tuple[str, DataPosition]:
    """Resumes up to step 4; returns what is said, and where the data stand then."""
    output = io.StringIO()
    config = read_configuration([run_folder / "config.gin"], ["train.num_steps=4", *bindings])
    pretrain(config, Console(file=output))
    record = Checkpoints(run_folder / "checkpoints").read_record(4)
    return output.getvalue(), recorded_position(record)


def changed_lines(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("the data have changed")]


def test_unchanged_data_are_not_worth_a_word(begun, tiny_store, tmp_path):
    shutil.copytree(tiny_store, tmp_path / "moved")
    output, position = resume(begun, f"data.store={tmp_path / 'moved'}")
    assert not changed_lines(output) and position.example == 32


def test_another_batch_size_continues_with_the_next_example(begun):
    output, position = resume(begun, "data.batch_size=4")
    assert changed_lines(output) == [
        "the data have changed since step 2: data.batch_size was 8 and is 4; resuming from example "
        "16"
    ]
    assert position.example == 16 + 2 * 4 and position.start == 0
    output, _ = resume(begun, "train.num_steps=5")
    assert not changed_lines(output)


@pytest.mark.parametrize(
    ("bindings", "changes"),
    [
        pytest.param(["data.seed=5"], "data.seed was 0 and is 5", marks=pytest.mark.slow),
        pytest.param(
            ["data.sequence_length=16"],
            "data.sequence_length was 32 and is 16",
            marks=pytest.mark.slow,  # the others say the same, and another batch size compiles too
        ),
        (
            ["data.order=documents", "blanks.mask_ratio=0.2"],
            "data.order was 'epochs' and is 'documents', blanks.mask_ratio was 0.15 and is 0.2",
        ),
    ],
)
def test_other_texts_are_named(begun, bindings, changes):
    output, position = resume(begun, *bindings)
    assert changed_lines(output) == [
        f"the data have changed since step 2: {changes}; resuming from example 16, in another "
        "order: texts may come again before others come once"
    ]
    assert position.example == 32


def test_another_store_is_named(begun, tiny_store, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tiny_store, other)
    metadata = json.loads((other / "metadata.json").read_text())
    (other / "metadata.json").write_text(json.dumps(metadata | {"sources": ["other text"]}))
    output, position = resume(begun, f"data.store={other}")
    (line,) = changed_lines(output)
    assert f"the store {other} is new, the store {tiny_store} is left out" in line
    assert {store.path: store.before for store in position.stores} == {
        str(other): 0,
        str(tiny_store): 16,
    }


def test_a_store_whose_text_was_exchanged_is_named(begun, tiny_store, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(tiny_store, store)
    resume(begun, f"data.store={store}")
    metadata = json.loads((store / "metadata.json").read_text())
    (store / "metadata.json").write_text(json.dumps(metadata | {"sources": ["other text"]}))
    output, _ = resume(begun, "train.num_steps=5")
    (line,) = changed_lines(output)
    assert f"since step 4: the store {store} holds other text; resuming from example 32" in line


def test_an_older_checkpoint_continues_where_its_steps_had_come(begun):
    path = begun / "checkpoints" / "2" / "record" / "metadata"
    record = json.loads(path.read_text())
    del record["data_position"], record["record_checksum"]
    path.write_text(json.dumps(record))
    output, position = resume(begun, "data.batch_size=4")
    assert "data.batch_size was 8 and is 4; resuming from example 16" in output
    assert position.example == 24
