"""What can be known before a run starts is refused then, and nothing has been written."""

import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from glm_jax.cli.main import main
from glm_jax.configure import read_configuration
from glm_jax.errors import RunError, UsageError
from glm_jax.tokenizer import load_tokenizer
from glm_jax.train.preflight import check_profile_steps
from glm_jax.train.pretrain import pretrain
from glm_jax.train.profile import ProfileSteps
from tests.data.store.writing import write_store


def write_stores(folder: Path, tiny_store: Path) -> None:
    """Stores that something is wrong with, beside others of the same tokenizer."""
    tokenizer = load_tokenizer(str(tiny_store / "tokenizer"))
    special = tokenizer.special
    long = [special["ENC"], *[5] * 100, special["eos"]]
    short = [special["ENC"], 5, special["eos"]]
    write_store(folder / "short_validation", {"train": [long], "validation": [short]}, tokenizer)
    write_store(folder / "short_training", {"train": [short], "validation": [long]}, tokenizer)
    write_store(folder / "no_validation", {"train": [long]}, tokenizer)
    write_store(folder / "damaged", {"train": [long], "validation": [long]}, tokenizer)
    shutil.rmtree(folder / "damaged" / "validation" / "tokens")
    other = load_tokenizer("bert", str(write_vocabulary(folder)))
    write_store(folder / "other_tokenizer", {"train": [long], "validation": [long]}, other)
    shutil.copytree(folder / "no_validation", folder / "exchanged")
    shutil.copytree(folder / "no_validation", folder / "unfinished")
    shutil.rmtree(folder / "exchanged" / "tokenizer")
    shutil.copytree(folder / "other_tokenizer" / "tokenizer", folder / "exchanged" / "tokenizer")
    (folder / "unfinished" / "metadata.json").unlink()


def write_vocabulary(folder: Path) -> Path:
    path = folder / "vocab.txt"
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "a"]) + "\n")
    return path


@pytest.fixture(scope="module")
def faulty(tiny_store, tmp_path_factory) -> Path:
    """A folder of stores, lines and weights that something is wrong with."""
    folder = tmp_path_factory.mktemp("faulty")
    write_stores(folder, tiny_store)
    (folder / "lines.jsonl").write_text('{"context": "no blank", "answer": "a"}\n')
    (folder / "none.jsonl").write_text("")
    words = " ".join(["word"] * 100)
    (folder / "long.jsonl").write_text(json.dumps({"context": "[MASK]", "answer": words}) + "\n")
    (folder / "file").write_text("a file")
    return folder


def supervised(name: str) -> list[str]:
    return [f"data.supervised={{folder}}/{name}", "data.supervised_share=0.1"]


REFUSED = {
    "validation shorter than a sequence": (
        ["data.store={folder}/short_validation"],
        "split validation of the store .*: the split has 3 tokens, but one example needs 32",
    ),
    "training shorter than a sequence": (
        ["data.store={folder}/short_training"],
        "split train of the store .*: the split has 3 tokens",
    ),
    "either, sampled by documents": (
        ["data.store={folder}/short_validation", "data.order=documents"],
        "split validation of the store .*: the split has 3 tokens",
    ),
    "one of two stores": (
        ["data.store=", "data.stores={{'{store}': 1.0, '{folder}/short_validation': 1.0}}"],
        "split validation of the store .*short_validation: the split has 3 tokens",
    ),
    "no validation": (
        ["data.store={folder}/no_validation"],
        "has no split 'validation', only train",
    ),
    "no store": (["data.store={folder}/missing"], "there is no token store at .*missing"),
    "unfinished store": (["data.store={folder}/unfinished"], "not a token store, or one that was"),
    "another tokenizer in the store": (
        ["data.store={folder}/exchanged"],
        "was built with the tokenizer .* but its folder holds another one",
    ),
    "stores of two tokenizers": (
        ["data.store=", "data.stores={{'{store}': 1.0, '{folder}/other_tokenizer': 1.0}}"],
        "were built with different tokenizers",
    ),
    "damaged store": (["data.store={folder}/damaged"], "validation/tokens"),
    "tokenizer without task masks": (
        ["data.store={folder}/other_tokenizer"],
        "blanks.task_masks is True, but the tokenizer has no token sMASK",
    ),
    "tokenizer without sentinels": (["blanks.sentinels=True"], "blanks.sentinels"),
    "tokenizer without dBLOCK": (
        [
            "data.store={folder}/other_tokenizer",
            "blanks.task_masks=False",
            "blanks.block_mask_probability=0.1",
        ],
        "the tokenizer has no token dBLOCK",
    ),
    "vocabulary of the model": (["model.vocab_size=128"], r"more than model\.vocab_size = 128"),
    "sequence without room": (["data.sequence_length=8"], "sequence_length is 8; expected .* 16"),
    "sequence beyond the positions": (
        ["data.sequence_length=64"],
        r"sequence_length is 64, but the model's position table ends at .* = 32",
    ),
    "positions": (["model.max_sequence_length=16"], r"position table ends at .* = 16"),
    "micro-batches": (["train.accumulation_steps=3"], "does not divide data.batch_size = 8"),
    "devices": (["mesh.fsdp=3"], "needs a multiple of 3 devices, but there are 1"),
    "slices": (["mesh.slices=2"], "mesh.slices is 2"),
    "chunks of the loss": (["train.loss_chunks=7"], "loss_chunks is 7, which does not divide"),
    "attention of another platform": (["model.attention=cudnn"], "cudnn"),
    "no supervised file": (supervised("missing.jsonl"), "missing.jsonl"),
    "supervised lines": (supervised("lines.jsonl"), "lines.jsonl"),
    "no supervised lines": (supervised("none.jsonl"), "no supervised examples"),
    "supervised lines that are too long": (supervised("long.jsonl"), "long.jsonl"),
    "no initial weights": (["train.initial_weights={folder}/missing"], "missing"),
    "initial weights that are none": (["train.initial_weights={store}"], "store"),
    "seed beyond 64 bits": ([f"train.seed={2**70}"], "train.seed is 1180591620717411303424"),
    "run folder below a file": (
        ["train.run_folder={folder}/file/run"],
        "train.run_folder is .*, but .*file is not a folder",
    ),
    "run folder that is a file": (["train.run_folder={folder}/file"], "file is not a folder"),
    "run folder at a URL that needs a package": (
        ["train.run_folder=dropbox://example/run"],
        "dropbox://example/run.* needs a Python package that is not installed",
    ),
    "no run folder": (["train.run_folder="], "train.run_folder is empty"),
}


@pytest.mark.parametrize(("bindings", "message"), REFUSED.values(), ids=list(REFUSED))
def test_a_run_that_cannot_work_is_refused_at_once(bindings, message, tiny_run, tiny_store, faulty):
    given = [text.format(folder=faulty, store=tiny_store) for text in bindings]
    before = sorted(faulty.rglob("*"))
    with pytest.raises((UsageError, RunError), match=message) as error:
        pretrain(read_configuration([tiny_run], given), Console(file=io.StringIO()))
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tiny_run.parent.iterdir()) == ["tiny.gin"]
    assert sorted(faulty.rglob("*")) == before


def test_initial_weights_of_another_model_are_refused_at_once(
    tiny_run, begun_tiny_run, run_here, tmp_path
):
    second = ["pretrain", f"--gin_file={tiny_run}", f"--gin.train.run_folder={tmp_path / 'second'}"]
    weights = f"--gin.train.initial_weights={begun_tiny_run}"
    done = run_here([*second, weights, "--gin.model.num_layers=3"])
    assert done.returncode == 2 and "has num_layers = 2, but the configuration says" in done.stderr
    assert not (tmp_path / "second").exists()
    # A run that has a checkpoint of its own needs them no longer.
    assert run_here([*second, weights, "--gin.train.num_steps=1"]).returncode == 0
    gone = f"--gin.train.initial_weights={tmp_path / 'gone'}"
    assert run_here([*second, gone, "--gin.train.num_steps=2"]).returncode == 0
    profile = run_here([*second, "--gin.train.num_steps=4", "--profile_steps=1:2"])
    assert profile.returncode == 2 and "this start runs from step 3 to" in profile.stderr
    evaluate_what_does_not_fit(run_here, tmp_path / "second")


def evaluate_what_does_not_fit(run_here, run_folder) -> None:
    """An evaluation, too, is refused before the weights are read."""
    shutil.rmtree(run_folder / "checkpoints" / "2" / "state")
    for flags, message in (
        (["--split=test"], "has no split 'test'"),
        (["--gin.data.sequence_length=8"], "expected an integer of at least 16"),
        (["--gin.mesh.fsdp=3"], "needs a multiple of 3 devices"),
        (["--gin.train.loss_chunks=7"], "loss_chunks is 7"),
        (["--num_batches=0"], "evaluation.num_batches is 0"),
        (["--gin.model.vocab_size=128"], "more than model.vocab_size = 128"),
    ):
        done = run_here(["evaluate", run_folder, *flags])
        assert done.returncode == 2 and message in done.stderr, done.stderr


def test_steps_to_trace_that_do_not_come_are_refused():
    check_profile_steps(ProfileSteps(10, 15), 12, 100)
    for steps, done, last in ((ProfileSteps(10, 15), 15, 100), (ProfileSteps(10, 15), 0, 9)):
        with pytest.raises(UsageError, match=r"--profile_steps is 10:15, but this start runs"):
            check_profile_steps(steps, done, last)


def test_the_command_leaves_no_folder(tiny_run, capsys):
    assert main(["pretrain", f"--gin_file={tiny_run}", "--gin.data.sequence_length=8"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tiny_run.parent / "run").exists()
