"""The commands as a user types them: what they print, how fast, and how they refuse."""

import json
import resource
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def finished_run(run_command, write_tiny_run, tmp_path_factory):
    """A finished run's folder, its gin file and what the command printed."""
    folder = tmp_path_factory.mktemp("finished")
    gin_file = write_tiny_run(folder)
    finished = run_command(["pretrain", f"--gin_file={gin_file}"])
    assert finished.returncode == 0, finished.stderr
    return folder / "run", gin_file, finished


def assert_refused(result, *parts: str) -> None:
    """Exit code 2 and one sentence on standard error that holds the parts."""
    assert result.returncode == 2, result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("glm-jax: "), result.stderr
    for part in parts:
        assert part in lines[0]


def processor_seconds() -> float:
    """Of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_answers_within_a_second(run_command):
    seconds = []
    for _ in range(3):
        start = processor_seconds()
        helped = run_command(["--help"])
        seconds.append(processor_seconds() - start)
    assert helped.returncode == 0
    for command in ("prepare", "pretrain", "evaluate", "fill", "convert", "parity", "inspect"):
        assert command in helped.stdout
        assert run_command([command, "--help"]).returncode == 0
    assert min(seconds) < 1


def test_help_imports_nothing_heavy():
    code = "import sys, glm_jax.cli.main; print(sorted(sys.modules))"
    listed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    for heavy in ("jax", "tensorflow", "numpy", "gin"):
        assert f"'{heavy}'" not in listed.stdout


def test_pretrain_shows_progress_and_ends_with_what_it_learnt(finished_run):
    run_folder, _, finished = finished_run
    output = finished.stdout
    for part in (
        "step 6/6  loss ",
        "tokens/s",
        "validation loss",
        "unigram entropy",
        "held-out sentences",
        "model: ",
        "truth: ",
        f"run folder  {run_folder}",
        f"loss plot   {run_folder / 'loss.png'}",
        f"continue    glm-jax pretrain --gin_file={run_folder}/config.gin",
    ):
        assert part in output
    assert finished.stderr == ""


def test_pretrain_again_says_that_it_is_done(finished_run, run_here):
    run_folder, gin_file, _ = finished_run
    again = run_here(["pretrain", f"--gin_file={gin_file}"])
    assert again.returncode == 0
    assert f"this run is done: all 6 steps of {run_folder}" in again.stdout


def test_evaluate_prints_the_scores(finished_run, run_here):
    run_folder, _, _ = finished_run
    result = run_here(["evaluate", run_folder, "--num_batches=3", "--json"])
    assert result.returncode == 0, result.stderr
    scores = json.loads(result.stdout)
    assert 0 < scores["loss"] < 10 and scores["unigram_entropy"] > 0
    assert {"loss_token", "loss_sentence", "loss_document"} <= scores.keys()


def test_fill_reads_arguments_and_standard_input(finished_run, run_command, run_here):
    run_folder, _, _ = finished_run
    text = "The [MASK] statement is [MASK] here."
    result = run_here(["fill", run_folder, "--json", text, "--max_blank_length=5"])
    assert result.returncode == 0, result.stderr
    filled = json.loads(result.stdout)
    assert len(filled["blanks"]) == 2
    assert all(len(blank["ids"]) <= 5 for blank in filled["blanks"])
    assert "[MASK]" not in filled["text"]
    assert_refused(run_command(["fill", run_folder]), "no text to fill")


def test_inspect_shows_and_draws_any_batch(finished_run, run_here, tmp_path):
    _, gin_file, _ = finished_run
    picture = tmp_path / "example.png"
    arguments = ["inspect", f"--gin_file={gin_file}", "--step=3", "--row=1"]
    result = run_here([*arguments, f"--picture={picture}"])
    assert result.returncode == 0, result.stderr
    assert "Part A" in result.stdout and "Part B" in result.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert run_here(arguments).stdout.splitlines() == result.stdout.splitlines()[:-1]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["teach"], ["teach"]),
        ([], ["COMMAND"]),
        (["pretrain"], ["--gin_file"]),
        (["pretrain", "--gin_file=none.gin"], ["none.gin does not exist"]),
        (["pretrain", "--gin_file=configs/runs/demo.gin", "--fast"], ["unknown argument '--fast'"]),
        (
            ["pretrain", "--gin_file=configs/runs/demo.gin", "--gin.optimizer.rate=1"],
            ["unknown name 'rate' in section optimizer"],
        ),
        (
            ["pretrain", "--gin_file=configs/runs/demo.gin", "--gin.train.num_steps=many"],
            ["train.num_steps is 'many', of type str; expected type int"],
        ),
        (
            ["pretrain", "--gin_file=configs/runs/demo.gin", "--gin.data.store=nowhere"],
            ["nowhere"],
        ),
        (
            ["pretrain", "--gin_file=configs/runs/demo.gin", "--num_processes=2"],
            ["--coordinator, --num_processes and --process_id go together"],
        ),
        (["evaluate", "nowhere"], ["nowhere is not a run folder"]),
        (["fill", "nowhere", "text"], ["there is no checkpoint at", "nowhere"]),
        (["fill", "nowhere", "text", "--gin.model.num_layers=3"], ["unknown argument"]),
        (["inspect", "--gin_file=configs/runs/demo.gin", "--step=-1"], ["--step is -1"]),
        (["inspect", "--gin_file=configs/runs/demo.gin", "--row=99"], ["--row is 99"]),
    ],
)
def test_bad_usage_is_one_sentence_and_exit_code_2(run_here, arguments, parts):
    assert_refused(run_here(arguments), *parts)


def test_a_mesh_that_does_not_fit_is_one_sentence(finished_run, run_command):
    _, gin_file, _ = finished_run
    arguments = ["pretrain", f"--gin_file={gin_file}", "--gin.mesh.fsdp=3"]
    # A process of its own: nothing that it loads may write to standard error.
    assert_refused(run_command(arguments), "fsdp=3", "devices")


def test_a_changed_model_is_one_sentence(finished_run, run_here):
    _, gin_file, _ = finished_run
    arguments = ["pretrain", f"--gin_file={gin_file}", "--gin.model.num_layers=3"]
    assert_refused(run_here(arguments), "model.num_layers = 2, but the configuration says 3")


def test_prepare_reports_and_its_store_can_be_trained_on(run_command, run_here, tiny_run, tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(40):
        sentences = [f"Text {number} has a sentence about the number {n}. " for n in range(60)]
        (texts / f"{number}.txt").write_text("".join(sentences))
    (texts / "empty.txt").write_text("")
    (texts / "broken.txt").write_bytes(b"Not \xff all of this is UTF-8, but most of it is. " * 20)
    store = tmp_path / "mine"
    arguments = ["prepare", texts, f"--out={store}", "--validation_fraction=0.2", "--workers=2"]
    prepared = run_command([*arguments, "--train_tokenizer=330"])
    assert prepared.returncode == 0, prepared.stderr
    for part in ("41 documents", "empty documents: 1", "documents with bad utf8: 1", str(store)):
        assert part in prepared.stdout
    trained = run_here(
        [
            "pretrain",
            f"--gin_file={tiny_run}",
            f"--gin.data.store={store}",
            "--gin.train.num_steps=2",
        ]
    )
    assert trained.returncode == 0, trained.stderr
    assert_refused(run_here([*arguments, "--train_tokenizer=330"]), "already", str(store))
    again = run_command([*arguments, f"--tokenizer={store}", "--overwrite"])
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["nowhere/", "--train_tokenizer=330"], "'nowhere/' matches no file"),
        (["README.md"], "--tokenizer"),
        (["configs", "--tokenizer=nowhere"], "--tokenizer is nowhere"),
        (["README.md", "--tokenizer=a", "--train_tokenizer=3"], "not allowed with"),
    ],
)
def test_prepare_refuses_in_one_sentence(run_here, arguments, part, tmp_path):
    assert_refused(run_here(["prepare", *arguments, f"--out={tmp_path / 'out'}"]), part)
    assert not (tmp_path / "out").exists()
