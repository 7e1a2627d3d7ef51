"""What must be set before libraries are used."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time

import pytest

from glm_jax import environment
from glm_jax.cli.main import main

# New pages of memory, of 4 KiB, in a step with 64 MiB of intermediate results: the fewest of some
# steps, since the first ones leave a heap with gaps.
STEPS = """
import resource, sys
import jax, jax.numpy as jnp
from glm_jax import environment
if sys.argv[1] == "keep":
    environment.keep_memory_between_steps()
step = jax.jit(lambda x: (x[:, None] * x[None, :]) @ x[:, None])
values = jnp.arange(4096.0)
faults = []
for _ in range(8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step(values).block_until_ready()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults[2:]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc keeps the memory")
def test_a_step_on_a_cpu_reuses_the_memory_of_the_step_before_it(process_environment):
    def new_pages(*arguments: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", STEPS, *arguments],
            env=process_environment(1),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    assert new_pages("keep") < 1000
    assert new_pages("return") > 10000


PROGRAM = """
import jax, jax.numpy as jnp
from glm_jax import environment
environment.MIN_COMPILE_SECONDS = 0.0
environment.keep_compiled_programs()
print(jax.config.jax_compilation_cache_dir)
jax.jit(lambda x: jnp.sin(x) + 1)(jnp.ones(3)).block_until_ready()
"""


def compile_with(environment: dict[str, str]) -> str:
    """Which folder a process keeps its programs in."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


@pytest.fixture
def no_cache(process_environment):
    """The environment of a process without a compilation cache of the tests."""
    variables = process_environment(1)
    return {name: value for name, value in variables.items() if "CACHE" not in name}


def test_compiled_programs_are_kept_in_the_users_cache_folder(no_cache, tmp_path):
    in_home = compile_with(no_cache | {"HOME": str(tmp_path)})
    kept = list((tmp_path / ".cache" / "glm-jax" / "programs").glob("*/*-cache"))
    assert kept and {str(path.parent) for path in kept} == {in_home}
    assert kept[0].parent.stat().st_mode & 0o077 == 0


def test_a_folder_that_jax_was_given_stays(no_cache, tmp_path):
    variables = {"HOME": str(tmp_path / "home"), "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "own")}
    assert compile_with(no_cache | variables) == str(tmp_path / "own")
    assert not (tmp_path / "home").exists()


def test_programs_are_compiled_without_a_folder_for_them(no_cache, tmp_path):
    (tmp_path / "file").touch()
    assert compile_with(no_cache | {"XDG_CACHE_HOME": str(tmp_path / "file")}) == "None"


def test_old_programs_are_deleted(monkeypatch, tmp_path):
    import jax

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    # The tests have a folder: only what happens to ours is looked at.
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    monkeypatch.setattr(type(jax.config), "jax_compilation_cache_dir", None, raising=False)
    folder = environment.program_folder()
    folder.mkdir(parents=True)
    for name, days in (("old", 31), ("new", 29)):
        (folder / name).touch()
        then = time.time() - days * 24 * 3600
        os.utime(folder / name, (then, then))
    environment.keep_compiled_programs()
    assert [path.name for path in folder.iterdir()] == ["new"]


def test_programs_of_other_processors_are_kept_apart(monkeypatch, tmp_path):
    folders = set()
    for flags in ("sse", "sse avx512f"):
        info = tmp_path / "cpuinfo"
        info.write_text(f"processor : 0\nmodel : 1\nflags : {flags}\n\nprocessor : 1\n")
        monkeypatch.setattr(environment, "CPU_INFO", info)
        folders.add(environment.program_folder())
    assert len(folders) == 2
    info.write_text(info.read_text().replace("processor : 1", "cpu MHz : 2000"))
    assert environment.program_folder() in folders


def test_a_command_searches_for_garbage_rarely():
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    try:
        assert main(["no-such-command"]) == 2
        assert gc.get_threshold() == environment.FEW_COLLECTIONS
    finally:
        gc.set_threshold(*before)


def test_no_garbage_is_searched_for_until_the_first_step(monkeypatch):
    frozen = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(gc.isenabled()))
    for already_frozen in (0, 5):
        monkeypatch.setattr(gc, "get_freeze_count", lambda count=already_frozen: count)
        with environment.without_garbage_collection():
            assert not gc.isenabled()
            environment.collect_garbage_again()
            assert gc.isenabled()
    assert frozen == [False]  # once, before it is searched again
    environment.collect_garbage_again()  # nothing to end
    assert frozen == [False]
    with pytest.raises(KeyError), environment.without_garbage_collection():
        raise KeyError
    assert gc.isenabled()
