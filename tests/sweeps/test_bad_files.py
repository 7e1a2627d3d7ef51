"""Sweep files that can't be meant: one sentence for each, before anything starts."""

from __future__ import annotations

import pytest

CHOICES = "sweep.choices = {'optimizer.learning_rate': (1e-3, 1e-2)}"
RANGES = "sweep.ranges = {'optimizer.learning_rate': (1e-4, 1e-1)}"
TPE = ("sweep.sampler = 'tpe'", "sweep.num_points = 3")

# Lines of a sweep's file, and what the sentence says.
BAD = {
    "unknown section": (
        ["sweep.choices = {'optimiser.learning_rate': (1e-3,)}"],
        "sweep.choices: unknown section 'optimiser'; did you mean 'optimizer'?",
    ),
    "unknown name": (
        ["sweep.choices = {'optimizer.lerning_rate': (1e-3,)}"],
        "sweep.choices: unknown name 'lerning_rate' in section optimizer; did you mean "
        "'learning_rate'?",
    ),
    "unknown setting of the sweep": (
        ["sweep.choises = {'optimizer.learning_rate': (1e-3,)}"],
        "unknown name 'choises' in section sweep; did you mean 'choices'?",
    ),
    "empty list": (
        ["sweep.choices = {'optimizer.learning_rate': ()}"],
        "sweep.choices['optimizer.learning_rate'] is empty; expected at least one value",
    ),
    "no list": (
        ["sweep.choices = {'optimizer.learning_rate': 1e-3}"],
        "sweep.choices['optimizer.learning_rate'] is 0.001, of type float; expected a list",
    ),
    "same value twice": (
        ["sweep.choices = {'optimizer.learning_rate': (1e-3, 0.001)}"],
        "sweep.choices['optimizer.learning_rate'] has 0.001 twice",
    ),
    "wrong type": (
        ["sweep.choices = {'train.num_steps': (2, 2.5)}"],
        "trial num_steps=2.5: train.num_steps is 2.5, of type float; expected type int",
    ),
    "impossible value": (
        ["sweep.choices = {'model.hidden_dropout': (0.1, 1.5)}"],
        "trial hidden_dropout=1.5: model.hidden_dropout is 1.5; expected a number in [0, 1)",
    ),
    "impossible combination": (
        ["sweep.choices = {'model.hidden_size': (32, 33)}"],
        "trial hidden_size=33: model.hidden_size is 33; expected a multiple of",
    ),
    "several impossible": (
        ["sweep.choices = {'model.hidden_size': (31, 32, 33)}"],
        "2 of 3 trials are impossible: trial hidden_size=31: model.hidden_size is 31;",
    ),
    "impossible mesh": (
        ["sweep.choices = {'mesh.fsdp': (1, 3)}"],
        "trial fsdp=3: the mesh data=-1, fsdp=3, tensor=1 needs a multiple of 3 devices, but "
        "there are 1",
    ),
    "nothing varies": (
        ["sweep.sampler = 'grid'"],
        "sweep.choices, sweep.ranges, sweep.variants and sweep.seeds are all empty",
    ),
    "no section": ([], None),
    "constraint that excludes all": (
        [CHOICES, "sweep.constraints = ('optimizer.learning_rate > 1',)"],
        "sweep.constraints exclude all 2 combinations",
    ),
    "constraint that no random point meets": (
        [
            RANGES,
            "sweep.sampler = 'random'",
            "sweep.num_points = 2",
            "sweep.constraints = ('optimizer.learning_rate > 1',)",
        ],
        "sweep.constraints exclude all of 10000 combinations drawn",
    ),
    "constraint that is no expression": (
        [CHOICES, "sweep.constraints = ('model.hidden_size %',)"],
        "sweep.constraints has 'model.hidden_size %', which is not an expression",
    ),
    "constraint that is no truth": (
        [CHOICES, "sweep.constraints = ('model.hidden_size % 2',)"],
        "sweep.constraints has 'model.hidden_size % 2', which is 0; expected True or False",
    ),
    "constraint with an unknown name": (
        [CHOICES, "sweep.constraints = ('model.hiden_size > 2',)"],
        "did you mean 'hidden_size'?",
    ),
    "code in a formula": (
        [CHOICES, "sweep.formulas = {'train.num_steps': '__import__(\"os\").getpid()'}"],
        "is not part of a formula",
    ),
    "formula that divides by zero": (
        [CHOICES, "sweep.formulas = {'train.num_steps': '10 // train.seed'}"],
        "which fails: integer division or modulo by zero",
    ),
    "formula of the wrong type": (
        [CHOICES, "sweep.formulas = {'train.num_steps': '10 / 4'}"],
        "train.num_steps is 2.5, of type float; expected type int",
    ),
    "same run folder": (
        ["sweep.choices = {'optimizer.learning_rate': (1e-3, 1.0000001e-3)}"],
        "two trials have the run folder learning_rate=0.001",
    ),
    "run folder in the sweep": (
        ["sweep.choices = {'train.run_folder': ('a', 'b')}"],
        "sweep.choices has train.run_folder, which the sweep sets",
    ),
    "same settings": (
        ["sweep.variants = {'a': {'model.num_layers': 1}, 'b': {'model.num_layers': 1}}"],
        "the trials variant=a and variant=b have the same settings",
    ),
    "set twice": (
        [CHOICES, "sweep.variants = {'a': {'optimizer.learning_rate': 1.0}}"],
        "optimizer.learning_rate is set by both sweep.choices and sweep.variants",
    ),
    "seed set twice": (
        ["sweep.seeds = (1, 2)", "sweep.choices = {'train.seed': (3, 4)}"],
        "train.seed is set by both sweep.choices and sweep.seeds",
    ),
    "seed twice": (["sweep.seeds = (1, 2, 1)"], "sweep.seeds has 1 twice"),
    "range in a grid": (
        [RANGES],
        "sweep.ranges has optimizer.learning_rate, but sweep.sampler is 'grid'",
    ),
    "range upside down": (
        ["sweep.ranges = {'optimizer.learning_rate': (1, 0.1)}", *TPE],
        "sweep.ranges['optimizer.learning_rate'] is (1, 0.1); expected (low, high)",
    ),
    "log range from zero": (
        ["sweep.ranges = {'optimizer.learning_rate': (0, 0.1, 'log')}", *TPE],
        "starts at 0; a log range needs a positive start",
    ),
    "end of a range that is impossible": (
        ["sweep.ranges = {'model.hidden_dropout': (0.0, 1.0)}", *TPE],
        "model.hidden_dropout is 1.0; expected a number in [0, 1)",
    ),
    "no number of points": (
        [RANGES, "sweep.sampler = 'random'"],
        "sweep.num_points is 0; sweep.sampler = 'random' needs the number",
    ),
    "unknown sampler": ([CHOICES, "sweep.sampler = 'bayes'"], "sweep.sampler is 'bayes'"),
    "metric without a kind": ([CHOICES, "sweep.metric = 'loss'"], "expected KIND/NAME"),
    "too many trials": (
        [
            "sweep.choices = {'train.num_steps': tuple_of, 'data.seed': tuple_of}".replace(
                "tuple_of", repr(tuple(range(1, 401)))
            )
        ],
        "the sweep has 160,000 trials; expected at most 100,000",
    ),
    "unknown launch flag": (
        [CHOICES, "sweep.backend = 'slurm'", "sweep.launch = {'node': 2}"],
        "sweep.launch: unknown flag 'node'; did you mean 'nodes'?",
    ),
    "missing launch flag": (
        [CHOICES, "sweep.backend = 'gke'", "sweep.launch = {'cluster': 'c'}"],
        "sweep.launch has no accelerator_type, which sweep.backend = 'gke' needs",
    ),
    "settings of no pruner": (
        [CHOICES, "sweep.pruner_settings = {'n_startup_trials': 2}"],
        "sweep.pruner_settings has n_startup_trials, but sweep.pruner is 'none'",
    ),
    "unknown setting of a pruner": (
        [CHOICES, "sweep.pruner = 'median'", "sweep.pruner_settings = {'startup': 2}"],
        "sweep.pruner_settings has 'startup', but median takes n_startup_trials",
    ),
    "devices that are not there": (
        [CHOICES, "sweep.devices = (0, 1)"],
        "sweep.devices is (0, 1), but this machine has only CPUs",
    ),
}


@pytest.mark.parametrize("name", [name for name, (_, said) in BAD.items() if said])
def test_bad_files_end_with_one_sentence(name, write_sweep, run_here, tmp_path):
    lines, said = BAD[name]
    done = run_here(["sweep", "run", write_sweep(*lines)])
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("glm-jax: ")
    assert not (tmp_path / "sweep").exists()


def test_a_file_without_a_sweep_is_refused(tiny_run, run_here):
    done = run_here(["sweep", tiny_run])
    assert done.returncode == 2
    assert "sets nothing of the section sweep; expected a sweep's file" in done.stderr


def test_missing_data_are_found_before_the_start(write_sweep, run_here, tmp_path):
    file = write_sweep("sweep.choices = {'data.store': ('nowhere', 'here')}")
    done = run_here(["sweep", "run", file])
    assert done.returncode == 2
    assert done.stderr == "glm-jax: data.store is nowhere, which does not exist\n"
    assert not (tmp_path / "sweep").exists()
    shown = run_here(["sweep", file])
    assert shown.returncode == 0 and "note: data.store is nowhere" in shown.stdout


def test_a_run_does_not_take_a_sweeps_file(write_sweep, run_here):
    done = run_here(["pretrain", f"--gin_file={write_sweep(CHOICES)}"])
    assert done.returncode == 2
    assert "sweep.folder is set, but this command has the sections" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "a", "b"], "glm-jax sweep takes one of plan, run, report and one file or folder"),
        (["a", "--watch"], "--watch goes with glm-jax sweep report"),
        (["a", "--retry_failed"], "--retry_failed goes with glm-jax sweep run"),
        (["missing.gin"], "the gin file missing.gin does not exist"),
    ],
)
def test_wrong_words(words, said, run_here):
    done = run_here(["sweep", *words])
    assert done.returncode == 2 and said in done.stderr
