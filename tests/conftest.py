"""Fixtures that several folders of tests use."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import hypothesis
import jaxtyping
import pytest

from tests.tiny_runs import (
    begun_tiny_run,
    finished_tiny_run,
    made_once,
    tiny_run,
    tiny_store,
    write_tiny_run,
)
from tests.type_checking import CHECKED_MODULES, check

__all__ = [
    "begun_tiny_run",
    "finished_tiny_run",
    "made_once",
    "tiny_run",
    "tiny_store",
    "write_tiny_run",
]

# Annotations, shapes included, are checked at run time in the tests' own processes. Installed
# before anything imports the package.
jaxtyping.install_import_hook(CHECKED_MODULES, f"{check.__module__}.{check.__name__}")

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"

# Of a worker, between two files.
MAX_GIGABYTES = 3.0

# When a process is taken for hanging. Far more than any takes: the machine may be busy.
HANG_SECONDS = 900

# Tracing makes many objects that stay: searching them for garbage at Python's own rate is a fifth
# of the time of tests that trace. Processes that tests start do the same (sitecustomize.py).
FEW_COLLECTIONS = (100_000, 50, 50)
gc.set_threshold(*FEW_COLLECTIONS)

# The suite starts many small runs of the same program; compiling it once is most of their time.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# As `glm_jax.environment.leave_out_keras`: TensorFlow would import Keras, for seconds.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
# Compiling takes far longer than running programs this small; without LLVM's optimizations and with
# XLA's older emitter of loops it takes a third. After 40 seconds of a busy machine XLA would take a
# late device for lost. The flags are part of a program's key in the cache: they are the same in
# every process.
XLA_FLAGS = (
    "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1 "
    f"--xla_cpu_collective_call_terminate_timeout_seconds={HANG_SECONDS}"
)
# Later versions have no other emitter, and end the process at a flag that they don't know.
if version("jaxlib").startswith("0.10."):
    XLA_FLAGS += " --xla_cpu_use_fusion_emitters=false"
if XLA_FLAGS not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {XLA_FLAGS}".strip()

# How long an example takes says nothing on a machine that others use too.
hypothesis.settings.register_profile("any-speed", deadline=None)
hypothesis.settings.load_profile("any-speed")

# A worker takes one file after another: the longest must not be the last.
LONGEST_FILES = (
    "distributed/test_restore.py",
    "parallel/test_sharded_step.py",
    "train/test_pretrain.py",
    "seq2seq/test_answers_finetune.py",
    "cli/test_commands.py",
    "distributed/test_kills.py",
    "train/test_resume.py",
    "train/test_preflight.py",
    "seq2seq/test_filler.py",
    "finetune/test_kills.py",
    "data/batches/test_pipeline.py",
    "train/test_step.py",
    "finetune/test_lora.py",
    "train/test_optimizers.py",
    "launch/test_runs.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first, and leaves the order within files and of all others."""
    ranks = {ROOT / "tests" / name: rank for rank, name in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


def pytest_collection_finish() -> None:
    """Leaves what the imported modules hold out of later searches for garbage: it stays."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def bounded_memory() -> Iterator[None]:
    """Forgets compiled programs between files once a worker holds gigabytes of them."""
    import jax  # only now: it reads the environment that is set above

    yield
    if resident_gigabytes() > MAX_GIGABYTES:
        jax.clear_caches()
        gc.collect()


def resident_gigabytes() -> float:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**30


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recorded numbers; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("no recorded numbers here: the folder shared/ beside the checkout is missing")
    return SHARED


@pytest.fixture(scope="module")
def without_xla_flags() -> Iterator[None]:
    """For tests of the TPU's compiler, which ends its process at flags of XLA for CPUs.

    This process has read the flags before: its programs for CPUs are compiled as elsewhere.
    """
    import jax

    jax.devices("cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("XLA_FLAGS", raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def memory_is_returned() -> Iterator[None]:
    """Leaves the workers' memory to the C library: they run training commands, and others too."""
    from glm_jax import environment

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "keep_memory_between_steps", lambda: None)
        yield


@pytest.fixture(scope="session")
def process_environment() -> Callable[[int], dict[str, str]]:
    """The environment of a process of our code on some number of virtual CPU devices."""

    def environment(devices: int = 1) -> dict[str, str]:
        started = str(ROOT / "tests" / "started_processes")
        path = [str(ROOT), started, os.environ.get("PYTHONPATH", "")]
        return os.environ | {
            "JAX_PLATFORMS": "cpu",
            "PYTHONDONTWRITEBYTECODE": "",  # else each compiles the package's sources again
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} "
            + os.environ.get("XLA_FLAGS", ""),
        }

    return environment


@pytest.fixture(scope="session")
def run_program(process_environment) -> Callable[..., str]:
    """Runs a Python file in a process with eight virtual devices; gives what it has printed."""

    def run(path: Path, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, str(path), *arguments],
            cwd=ROOT,
            env=process_environment(8),
            capture_output=True,
            text=True,
            timeout=HANG_SECONDS,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def start_command(process_environment) -> Callable[..., subprocess.Popen[str]]:
    """Starts `glm-jax` with arguments as a real process, on some number of virtual devices."""

    def start(arguments: Sequence[object], devices: int = 1) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "glm_jax", *map(str, arguments)],
            cwd=ROOT,
            env=process_environment(devices),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture(scope="session")
def run_command(start_command) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `glm-jax` with arguments to its end."""

    def run(arguments: Sequence[object], devices: int = 1) -> subprocess.CompletedProcess[str]:
        process = start_command(arguments, devices)
        output, errors = process.communicate(timeout=HANG_SECONDS)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    return run


@pytest.fixture
def run_here(monkeypatch, capsys) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `glm-jax` with arguments in this process, where no process of its own is the point.

    A process of its own takes seconds to begin.
    """
    from glm_jax.cli.main import main

    def run(arguments: Sequence[object]) -> subprocess.CompletedProcess[str]:
        given = [str(argument) for argument in arguments]
        monkeypatch.chdir(ROOT)
        capsys.readouterr()
        code = main(given)
        printed = capsys.readouterr()
        return subprocess.CompletedProcess(given, code, printed.out, printed.err)

    return run
