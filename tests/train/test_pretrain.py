"""A whole run: what it leaves, that it goes on exactly, and what stops it."""

import io
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from glm_jax.checkpoints.checkpoints import Checkpoints
from glm_jax.cli.main import main
from glm_jax.cluster.heartbeat import read_heartbeats
from glm_jax.configure import read_configuration
from glm_jax.convert.load import load
from glm_jax.errors import RunError, UsageError
from glm_jax.train.config import RunConfig
from glm_jax.train.metrics import read_metrics
from glm_jax.train.pretrain import Outcome, pretrain
from glm_jax.train.reporter import progress_line


@pytest.fixture
def finished(finished_tiny_run, tiny_run) -> RunConfig:
    """The run of `tiny_run`, finished."""
    shutil.copytree(finished_tiny_run, tiny_run.parent / "run")
    return read_configuration([tiny_run])


@pytest.fixture
def begun(begun_tiny_run, tiny_run) -> RunConfig:
    """The run of `tiny_run`, of which one step is done."""
    shutil.copytree(begun_tiny_run, tiny_run.parent / "run")
    return read_configuration([tiny_run], ["train.num_steps=1"])


def run(gin_file: Path, *bindings: str) -> tuple[Outcome, RunConfig, str]:
    output = io.StringIO()
    config = read_configuration([gin_file], bindings)
    outcome = pretrain(config, Console(file=output))
    return outcome, config, output.getvalue()


def final_params(config: RunConfig) -> dict[str, np.ndarray]:
    _, params = load(config.train.run_folder)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def train_records(config: RunConfig) -> list[dict]:
    records = read_metrics(Path(config.train.run_folder) / "metrics.jsonl")
    return [record for record in records if record["kind"] == "train"]


def assert_same_params(one: RunConfig, other: RunConfig) -> None:
    expected, found = final_params(one), final_params(other)
    assert expected.keys() == found.keys()
    for name in expected:
        np.testing.assert_array_equal(expected[name], found[name], err_msg=name)


def test_a_run_leaves_its_folder_and_learns(tiny_run):
    outcome, config, output = run(tiny_run, "train.num_steps=30", "evaluation.every=15")
    assert outcome == Outcome(steps_before=0, steps=30, finished=True)
    folder = Path(config.train.run_folder)
    assert read_configuration([folder / "config.gin"]) == config
    assert json.loads((folder / "config.json").read_text())["train"]["num_steps"] == 30
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert list((folder / "tensorboard").iterdir())
    records = train_records(config)
    assert [record["step"] for record in records] == list(range(1, 31))
    assert records[-1]["loss"] < records[0]["loss"] - 0.5
    positive = ("learning_rate", "gradient_norm", "target_tokens", "tokens_per_second")
    for name in (*positive, "step_seconds"):
        assert records[-1][name] > 0
    assert 0 <= records[-1]["data_wait"] < 1
    validations = [r for r in read_metrics(folder / "metrics.jsonl") if r["kind"] == "validation"]
    assert [record["step"] for record in validations] == [15, 30]
    assert all(record["seconds"] > 0 for record in validations)
    (save,) = [r for r in read_metrics(folder / "metrics.jsonl") if r["kind"] == "save"]
    assert save["step"] == 30 and 0 < save["blocked_seconds"] < save["complete_seconds"]
    (beat,) = read_heartbeats(folder)
    assert (beat.started, beat.finished, beat.doing) == (30, 30, "ended")
    assert "device(s) (one copy); " in output and " of state a device" in output
    assert {"loss_token", "loss_sentence", "loss_document", "accuracy"} <= validations[0].keys()
    assert "step 30/30" in output and "validation loss" in output
    record = Checkpoints(folder / "checkpoints").read_record(30)
    assert record["data_seed"] == config.data.seed and len(record["tokenizer_fingerprint"]) == 64


@pytest.mark.parametrize("num_steps", [pytest.param(6, marks=pytest.mark.slow), 9])
def test_an_evaluation_that_a_kill_prevented_is_made_up_for(finished, tiny_run, num_steps):
    folder = Path(finished.train.run_folder)
    records = list(read_metrics(folder / "metrics.jsonl"))
    (lost,) = [record for record in records if record["kind"] == "validation"]
    kept = [json.dumps(record) + "\n" for record in records if record is not lost]
    (folder / "metrics.jsonl").write_text("".join(kept))
    bindings = (f"train.num_steps={num_steps}", "evaluation.every=6")
    outcome, _, output = run(tiny_run, *bindings)
    assert outcome.finished and "step 6: validation" in output
    records = list(read_metrics(folder / "metrics.jsonl"))
    found = [record for record in records if record["kind"] == "validation"]
    assert [record["step"] for record in found] == sorted({6, num_steps})
    assert {**found[0], "seconds": 0} == {**lost, "seconds": 0}
    assert "validation" not in run(tiny_run, *bindings)[2]


def test_a_run_in_parts_equals_an_uninterrupted_one_bit_for_bit(tiny_run, tmp_path):
    dropout = ("model.hidden_dropout=0.1", "model.attention_dropout=0.1")
    _, whole, _ = run(tiny_run, *dropout)
    elsewhere = f"train.run_folder={tmp_path / 'parts'}"
    run(tiny_run, *dropout, elsewhere, "train.num_steps=2")
    run(tiny_run, *dropout, elsewhere, "train.num_steps=4")
    outcome, parts, output = run(tiny_run, *dropout, elsewhere)
    assert outcome == Outcome(steps_before=4, steps=6, finished=True)
    assert "resuming from step 4" in output
    assert_same_params(whole, parts)
    losses = [[r["loss"] for r in train_records(config)] for config in (whole, parts)]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_a_damaged_checkpoint_gives_the_one_before(finished, tiny_run, tmp_path):
    elsewhere = (f"train.run_folder={tmp_path / 'damaged'}", "checkpoint.every=2")
    run(tiny_run, *elsewhere, "train.num_steps=2")
    run(tiny_run, *elsewhere, "train.num_steps=4")
    (tmp_path / "damaged" / "checkpoints" / "4" / "state" / "manifest.ocdbt").unlink()
    outcome, config, output = run(tiny_run, *elsewhere)
    assert outcome == Outcome(steps_before=2, steps=6, finished=True)
    assert "set aside as 4.damaged: state/manifest.ocdbt is missing" in output
    assert "resuming from step 2" in output
    assert_same_params(finished, config)
    assert [record["step"] for record in train_records(config)] == list(range(1, 7))


def test_a_finished_run_is_left_as_it_is(finished, tiny_run):
    folder = Path(finished.train.run_folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    outcome, _, _ = run(tiny_run)
    assert outcome == Outcome(steps_before=6, steps=6, finished=True)
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_accumulation_does_not_change_the_losses(finished, tiny_run, tmp_path):
    elsewhere = f"train.run_folder={tmp_path / 'accumulated'}"
    _, accumulated, _ = run(tiny_run, elsewhere, "train.accumulation_steps=4")
    np.testing.assert_allclose(
        [record["loss"] for record in train_records(finished)],
        [record["loss"] for record in train_records(accumulated)],
        rtol=1e-5,
    )


def test_a_step_that_is_not_finite_stops_the_run_and_spares_the_checkpoint(
    finished, tiny_run, monkeypatch
):
    good = final_params(finished)
    poison(monkeypatch)
    with pytest.raises(RunError, match=r"step 7: loss nan.*max_skipped_steps is 0"):
        run(tiny_run, "train.num_steps=9")
    for name, values in final_params(finished).items():
        np.testing.assert_array_equal(values, good[name])


def test_steps_that_are_not_finite_are_skipped_up_to_the_allowed_number(
    finished, tiny_run, monkeypatch
):
    good = final_params(finished)
    poison(monkeypatch)
    outcome, config, _ = run(tiny_run, "train.num_steps=9", "train.max_skipped_steps=3")
    assert outcome.steps == 9
    assert train_records(config)[-1]["skipped_steps"] == 3
    for name, values in final_params(config).items():
        np.testing.assert_array_equal(values, good[name])


def poison(monkeypatch) -> None:
    """Makes every training batch's loss mask infinite from now on."""
    from glm_jax.data.batches import inputs

    original = inputs.batches

    def poisoned(split, *, num_steps, **arguments):
        for batch in original(split, num_steps=num_steps, **arguments):
            training = num_steps is None
            factor = np.float32(np.inf if training else 1)
            yield batch | {"loss_mask": batch["loss_mask"] + factor - 1}

    monkeypatch.setattr(inputs, "batches", poisoned)


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("model.hidden_size=64", "has model.hidden_size = 32, but the configuration says 64"),
        ("model.num_layers=3", "model.num_layers"),
        ("model.vocab_size=640", "model.vocab_size"),
    ],
)
def test_a_changed_model_does_not_resume(begun, tiny_run, binding, message):
    with pytest.raises(UsageError, match=message):
        run(tiny_run, binding)


def test_a_store_of_another_tokenizer_does_not_resume(begun, tiny_run, tmp_path):
    from glm_jax.tokenizer import train_sentencepiece
    from tests.data.store.writing import write_store

    tokenizer = train_sentencepiece(["some other text " * 50], tmp_path / "t", vocab_size=300)
    ids = [tokenizer.special["ENC"], *tokenizer.encode_text("other text " * 50)]
    write_store(tmp_path / "other", {"train": [ids], "validation": [ids]}, tokenizer)
    with pytest.raises(UsageError, match="was trained with the tokenizer"):
        run(tiny_run, f"data.store={tmp_path / 'other'}")


def test_a_vocabulary_larger_than_the_models_is_refused(tiny_run):
    with pytest.raises(UsageError, match=r"more than model\.vocab_size = 128"):
        run(tiny_run, "model.vocab_size=128")


def test_a_mesh_that_does_not_fit_is_refused(tiny_run):
    with pytest.raises(UsageError, match="devices"):
        run(tiny_run, "mesh.fsdp=3")


def test_a_store_whose_tokenizer_was_exchanged_is_refused(tiny_run, tiny_store, tmp_path):
    from glm_jax.tokenizer import train_sentencepiece

    exchanged = tmp_path / "exchanged"
    shutil.copytree(tiny_store, exchanged)
    shutil.rmtree(exchanged / "tokenizer")
    train_sentencepiece(["some other text " * 50], exchanged / "tokenizer", vocab_size=300)
    with pytest.raises(UsageError, match="was built with the tokenizer"):
        run(tiny_run, f"data.store={exchanged}")


def test_progress_line_has_step_loss_speed_and_time_left():
    metrics = {"loss": 1.23456, "tokens_per_second": 12345.6, "data_wait": 0.0123}
    line = progress_line(30, 150, metrics, 0.5)
    assert line == ("step  30/150  loss 1.235  12,346 tokens/s  1m00s left  1.2% waiting for data")


@pytest.mark.slow
def test_a_run_may_start_from_the_weights_of_another(tiny_run, tmp_path):
    _, first, _ = run(tiny_run, "train.num_steps=3")
    original = tmp_path / "original"
    assert main(["convert", first.train.run_folder, str(original), "--to=original"]) == 0
    second = (f"train.run_folder={tmp_path / 'second'}", f"train.initial_weights={original}")
    still = ("optimizer.learning_rate=1e-30", "train.num_steps=1", "train.seed=5")
    _, config, _ = run(tiny_run, *second, *still)
    assert_same_params(first, config)
    with pytest.raises(UsageError, match=r"has num_layers = 2, but .* model\.num_layers = 3"):
        run(tiny_run, *second, f"train.run_folder={tmp_path / 'third'}", "model.num_layers=3")


def test_a_run_does_not_resume_from_converted_weights(begun, tiny_run, tmp_path):
    converted = tmp_path / "converted"
    assert main(["convert", begun.train.run_folder, str(converted)]) == 0
    with pytest.raises(UsageError, match="was converted, not trained here"):
        run(tiny_run, f"train.run_folder={converted}")
