"""Every launch script prints what it would do, passes arguments on whole and refuses bad flags."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from glm_jax.cli.main import COMMANDS
from glm_jax.compile.tpu_flags import libtpu_init_args

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
GIN_FILE = "--gin_file=configs/runs/demo.gin"
NEEDED = {
    "local.sh": [],
    "processes.sh": ["--num_processes=2"],
    "slurm.sh": ["--nodes=2"],
    "gke.sh": [
        "--cluster=c",
        "--workload=w",
        "--accelerator_type=v5p-128",
        "--image=eu.example/p/glm",
    ],
    "tpu_vm.sh": [
        "--name=glm",
        "--zone=z",
        "--accelerator_type=v5litepod-256",
        "--image=eu.example/p/glm",
    ],
}
HOSTILE = [
    "--gin.train.run_folder='a b/$(touch ruined)'",
    "--gin.data.store='it''s;*?`x`&\"\\'",
    "--gin.train.run_folder='two\nlines ü'",
]


def lines(output: str) -> list[list[str]]:
    """The commands that a dry run prints, taken apart as a shell does, without its remarks."""
    whole = "\n".join(line for line in output.split("\n") if not line.startswith("# "))
    parsed, current = [], ""
    for line in whole.split("\n"):
        current = f"{current}\n{line}" if current else line
        try:
            parsed.append(shlex.split(current))
            current = ""
        except ValueError:  # a quoted newline
            continue
    return [command for command in parsed if command]


def training_arguments(script: str, commands: list[list[str]]) -> list[str]:
    """What reaches `glm-jax pretrain` in the first command that trains, however it is wrapped."""
    if script == "slurm.sh":
        inner = shlex.split(value_of(commands[0], "--wrap"))
    elif script == "gke.sh":
        inner = shlex.split(value_of(commands[0], "--command"))
    elif script == "tpu_vm.sh":
        trains = next(command for command in commands if "ssh" in command)
        inner = shlex.split(value_of(trains, "--command"))
    else:
        inner = commands[0]
    start = inner.index("glm-jax") + 2 if "glm-jax" in inner else inner.index("launch/local.sh") + 1
    return [argument for argument in inner[start:] if argument != "--"]


def value_of(command: list[str], flag: str) -> str:
    return next(
        argument.removeprefix(f"{flag}=") for argument in command if argument.startswith(f"{flag}=")
    )


@pytest.mark.parametrize("script", NEEDED)
def test_a_dry_run_does_nothing_and_passes_every_argument_on(script, launch, stand_in):
    records = [stand_in(name) for name in ("glm-jax", "sbatch", "srun", "gcloud", "xpk", "docker")]
    given = [GIN_FILE, *HOSTILE, "--gin.train.num_steps=3"]
    done = launch(script, "--dry-run", *NEEDED[script], *given, "--", "--profile_steps=1:2", "a b")
    assert done.returncode == 0, done.stderr
    passed_on = training_arguments(script, lines(done.stdout))
    expected = [*given, "--profile_steps=1:2", "a b"]
    start = passed_on.index(GIN_FILE)
    assert passed_on[start : start + len(expected)] == expected
    assert not any(record.exists() for record in records)
    for flag in NEEDED[script]:
        assert flag.partition("=")[2] in done.stdout


def started_command(script: str, commands: list[list[str]]) -> list[str]:
    """`glm-jax COMMAND ...`, as the script or the container that it starts runs it."""
    if script in ("local.sh", "processes.sh"):
        return commands[0]
    wrapped = next(c for c in commands if any(a.startswith(("--wrap=", "--command=")) for a in c))
    flag = "--wrap" if script == "slurm.sh" else "--command"
    inner = shlex.split(value_of(wrapped, flag))
    if script == "slurm.sh":
        return inner[inner.index("glm-jax") :]
    inside = inner[inner.index("launch/local.sh") + 1 :]
    # The first flag is of local.sh, and `--` ends those.
    assert inside[1].startswith("--generation=") and inside[2] == "--"
    return ["glm-jax", inside[0], *inside[3:]]


@pytest.mark.parametrize("script", NEEDED)
@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_a_run_of_either_kind_is_started_by_all_scripts(script, command, launch):
    given = [GIN_FILE, "--gin.finetune.run_folder='a b'"]
    done = launch(
        script, command, "--dry-run", *NEEDED[script], *given, "--", "--profile_steps=1:2"
    )
    assert done.returncode == 0, done.stderr
    started = started_command(script, lines(done.stdout))
    assert started[:2] == ["glm-jax", command]
    arguments = [a for a in started[2:] if not a.startswith(("--distributed", "--coordinator"))]
    assert arguments[:3] == [*given, "--profile_steps=1:2"]
    together = {"local.sh": [], "processes.sh": ["--coordinator=localhost:12355"]}
    for flag in together.get(script, ["--distributed"]):
        assert flag in started


@pytest.mark.parametrize("script", ["local.sh", "slurm.sh", "gke.sh", "tpu_vm.sh"])
def test_any_other_command_runs_as_one_process_without_a_gin_file(script, launch):
    needed = [flag for flag in NEEDED[script] if flag != "--nodes=2"]
    needed += ["--nodes=1"] if script == "slurm.sh" else []
    done = launch(script, "evaluate", "--dry-run", *needed, "--", "runs/a b", "--task=rte")
    assert done.returncode == 0, done.stderr
    started = started_command(script, lines(done.stdout))
    assert started == ["glm-jax", "evaluate", "runs/a b", "--task=rte"]


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        ("processes.sh", ["--num_processes=2"]),
        ("slurm.sh", ["--nodes=2"]),
        ("slurm.sh", ["--nodes=1", "--gpus_per_node=8"]),
        ("gke.sh", [*NEEDED["gke.sh"], "--num_slices=2"]),
        ("tpu_vm.sh", [*NEEDED["tpu_vm.sh"], "--num_slices=2"]),
    ],
)
def test_several_processes_of_a_command_for_one_are_refused(script, flags, launch):
    done = launch(script, "evaluate", "--dry-run", *flags, "--", "runs/a")
    assert (done.returncode, done.stdout) == (2, "")
    assert "evaluate runs as one process" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("script", NEEDED)
def test_a_command_that_there_is_not_is_refused(script, launch):
    done = launch(script, "finetun", "--dry-run", *NEEDED[script], GIN_FILE)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no command 'finetun'; expected one of" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_scripts_know_every_command():
    functions = (LAUNCH / "common.sh").read_text()
    known = functions.partition('all_commands="')[2].partition('"')[0].split()
    assert known == [module.__name__.rpartition(".")[2] for module in COMMANDS]


@pytest.mark.parametrize(
    ("script", "missing"),
    [(script, flag) for script, flags in NEEDED.items() for flag in [*flags, GIN_FILE]],
)
def test_a_missing_flag_is_named(script, missing, launch):
    given = [flag for flag in [*NEEDED[script], GIN_FILE] if flag != missing]
    done = launch(script, "--dry-run", *given)
    name = missing.partition("=")[0]
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert f"{script}: {name}=" in done.stderr and "is missing" in done.stderr


@pytest.mark.parametrize("script", NEEDED)
@pytest.mark.parametrize(
    "wrong", ["--zoone=a", "configs/runs/demo.gin", "--gin_file", "--a b=1", "--dry-run=1"]
)
def test_a_flag_or_argument_that_is_not_known_is_refused(script, wrong, launch):
    done = launch(script, "--dry-run", *NEEDED[script], GIN_FILE, wrong)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"{script}: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("script", "wrong", "named"),
    [
        ("processes.sh", "--num_processes=two", "--num_processes is 'two'"),
        ("processes.sh", "--port=0", "--port is '0'"),
        ("slurm.sh", "--nodes=-1", "--nodes is '-1'"),
        ("slurm.sh", "--gpus_per_node=x", "--gpus_per_node is 'x'"),
        ("gke.sh", "--num_slices=0", "--num_slices is '0'"),
        ("gke.sh", "--accelerator_type=h100-8", "--accelerator_type is 'h100-8'"),
        ("tpu_vm.sh", "--poll_seconds=", "--poll_seconds needs a value"),
        ("local.sh", "--generation=v9", "'v9'"),
    ],
)
def test_a_wrong_value_is_refused(script, wrong, named, launch):
    done = launch(script, "--dry-run", *NEEDED[script], GIN_FILE, wrong)
    assert done.returncode == 2
    assert named in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("script", NEEDED)
def test_help_shows_the_flags(script, launch):
    done = launch(script, "--help")
    assert done.returncode == 0
    assert f"launch/{script}" in done.stdout and "--dry-run" in done.stdout
    assert "set -euo" not in done.stdout
    for flag in NEEDED[script]:
        assert flag.partition("=")[0] in done.stdout


def test_each_of_several_processes_gets_its_number(launch):
    done = launch("processes.sh", "--dry-run", "--num_processes=3", "--port=77", GIN_FILE)
    assert [command[-3:] for command in lines(done.stdout)] == [
        ["--coordinator=localhost:77", "--num_processes=3", f"--process_id={number}"]
        for number in range(3)
    ]


def test_slurm_starts_one_process_for_each_gpu_and_warns_before_the_end(launch):
    done = launch(
        "slurm.sh",
        "--dry-run",
        "--nodes=4",
        "--gpus_per_node=8",
        "--time=12:00:00",
        "--partition=p",
        "--save_seconds=60",
        GIN_FILE,
    )
    (command,) = lines(done.stdout)
    assert {
        "--nodes=4",
        "--ntasks-per-node=8",
        "--gpus-per-node=8",
        "--time=12:00:00",
        "--partition=p",
        "--signal=TERM@60",
    } <= set(command)
    step = shlex.split(value_of(command, "--wrap"))
    assert step[:2] == ["exec", "srun"] and "--distributed" in step


def test_the_cloud_scripts_choose_the_flags_of_the_generation(launch):
    for script in ("gke.sh", "tpu_vm.sh"):
        for kind, generation in (("v5litepod-16", "v5e"), ("v4-128", "v4"), ("v6e-8", "v6e")):
            done = launch(
                script, "--dry-run", *NEEDED[script], f"--accelerator_type={kind}", GIN_FILE
            )
            arguments = training_arguments(script, lines(done.stdout))
            assert f"--generation={generation}" in arguments and "--distributed" in arguments


def test_one_machine_with_tpus_gets_the_flags_of_its_generation(launch):
    done = launch("local.sh", "--dry-run", "--generation=v4", GIN_FILE)
    (command,) = lines(done.stdout)
    assert command == [
        "env",
        f"LIBTPU_INIT_ARGS={libtpu_init_args('v4')}",
        "glm-jax",
        "pretrain",
        GIN_FILE,
    ]


def test_the_scripts_have_no_findings():
    checker = shutil.which("shellcheck")
    if checker is None:
        pytest.skip("shellcheck is not installed")
    scripts = sorted(str(path) for path in LAUNCH.glob("*.sh"))
    checked = subprocess.run(
        [checker, "--severity=warning", "--external-sources", "--source-path=SCRIPTDIR", *scripts],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout
