"""Every path argument of every command, written in every way that users write paths.

A row of `READ` or `WRITTEN` is an argument. It works however the path is written; a path that is
empty, missing, in the way of something or on a disk that is read-only or full gets one sentence and
exit code 1 or 2, and nothing saved before is lost.
"""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

import glm_jax
from glm_jax.cli import serve
from glm_jax.cli.main import main
from glm_jax.compile.report import read_report
from glm_jax.data.store.store import open_store
from glm_jax.errors import UsageError
from tests.cli.path_table import READ, SPACED, SPELLINGS, WRITTEN, table, with_paths

ROOT = Path(__file__).parents[2]
RECORDED_STEP = ROOT / "docs/tpu/glm_10b-v4-4x4x4.json"


@pytest.fixture(scope="module")
def things(tiny_store, write_tiny_run, tmp_path_factory) -> Iterator[Path]:
    """The working and home folder: a finished run of one step, its store, and small files."""
    folder = tmp_path_factory.mktemp("things")
    (folder / SPACED).symlink_to(folder)
    (folder / "store").symlink_to(tiny_store)
    gin_file = write_tiny_run(folder)
    gin_file.write_text(
        gin_file.read_text() + "train.num_steps = 1\nevaluation.fill_examples = 0\n"
    )
    (folder / "texts.txt").write_text("x [MASK]\n")
    (folder / "token.txt").write_text("secret\n")
    (folder / "keep.py").write_text("def keep(document):\n    return True\n")
    (folder / "examples.jsonl").write_text('{"text": "x [MASK]", "answers": ["y"]}\n')
    (folder / "examples.json").write_text("{}")
    (folder / "step.json").write_bytes(RECORDED_STEP.read_bytes())
    (folder / "corpus").mkdir()
    for number in range(40):
        text = f"Text number {number}: the quick brown fox jumps over the lazy dog. ÄÖÜ?!\n" * 8
        (folder / f"corpus/{number}.txt").write_text(text)
    positions = np.arange(4)[None, None].repeat(2, 1)
    np.savez(
        folder / "batch.npz",
        tokens=positions[:, 0],
        position_ids=positions,
        attention_mask=np.array([2]),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["pretrain", "--gin_file=tiny.gin"]) == 0
        yield folder


@pytest.fixture
def command(things, monkeypatch, capsys) -> Callable[..., tuple[int, str]]:
    """Runs a command in the folder of all things; gives its exit code and what it printed."""
    monkeypatch.chdir(things)
    monkeypatch.setenv("HOME", str(things))
    monkeypatch.setattr("glm_jax.compile.topology.open_topology", lambda *_: v5e_topology())
    recorded = read_report(RECORDED_STEP)
    monkeypatch.setattr("glm_jax.compile.any_step.compile_step", lambda *_: recorded)
    # Drawing it takes seconds.
    monkeypatch.setattr("glm_jax.data.inspect.picture.example_figure", lambda *_, **__: Figure())
    monkeypatch.setattr(serve, "load_filler", found_checkpoint)
    subprocess.run(["rm", "-rf", things / "new"], check=True)

    def run(arguments: Sequence[str], path: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main([argument.replace("{}", path) for argument in arguments])
        printed = capsys.readouterr()
        if code:
            lines = printed.err.splitlines()
            assert len(lines) == 1 and lines[0].startswith("glm-jax: "), printed.err
            assert "Traceback" not in printed.out
        return code, printed.out + printed.err

    return run


def v5e_topology() -> SimpleNamespace:
    """What the command needs of a topology, without libtpu."""
    return SimpleNamespace(chip=SimpleNamespace(name="v5e"))


def found_checkpoint(arguments) -> None:
    """Ends `serve` once it has a checkpoint's path."""
    found = (arguments.checkpoint / "config.gin").is_file()
    raise UsageError(f"{'found' if found else 'there is no'} the checkpoint")


@pytest.mark.parametrize(
    ("arguments", "name", "code", "part", "spelling"), table(READ, [*SPELLINGS])
)
def test_what_is_read_is_found(command, arguments, name, code, part, spelling):
    ended, printed = command(arguments, spelling(name))
    assert ended == code, printed
    assert part in printed


@pytest.mark.parametrize(
    ("arguments", "path"),
    with_paths(
        [row for row in READ if row[0] != "train.run_folder, resumed"],
        ["nothing here", "", "  ", "token.txt/inside", "~nobody-here/x"],
    ),
)
def test_what_is_not_there_is_one_sentence(command, arguments, path, monkeypatch):
    monkeypatch.setattr(serve, "load_filler", missing_checkpoint)
    code, printed = command(arguments, path)
    assert code in (1, 2), printed


@pytest.mark.parametrize("spelling", [pytest.param(s, id=name) for name, s in SPELLINGS.items()])
@pytest.mark.parametrize(
    ("function", "name"),
    [(glm_jax.load, "run"), (glm_jax.load_tokenizer, "run"), (open_store, "store")],
)
def test_functions_take_the_same_paths(command, function, name, spelling):
    assert function(spelling(name))
    for path in ("", "nothing here", "token.txt/inside", "~nobody-here/x"):
        with pytest.raises(UsageError):
            function(path)


def missing_checkpoint(arguments) -> None:
    """As `serve`'s own, without loading what is there."""
    if not arguments.checkpoint.exists():
        raise UsageError(f"there is no checkpoint at {arguments.checkpoint}")


@pytest.mark.parametrize(
    ("arguments", "inside", "spelling"),
    table(WRITTEN, [name for name in SPELLINGS if name != "absolute"]),
)
def test_what_is_written_is_where_it_was_asked_for(command, things, arguments, inside, spelling):
    (things / "new").mkdir()
    code, printed = command(arguments, spelling("new/ö x"))
    assert code == 0, printed
    assert (things / "new/ö x" / inside).exists()
    assert [path.name for path in (things / "new").iterdir() if path.name[0] != "."] == ["ö x"]


@pytest.mark.parametrize(
    ("arguments", "path"),
    with_paths(WRITTEN, ["token.txt/inside", "", " ", "/proc/nothing/x", "~nobody-here/x"]),
)
def test_what_can_not_be_written_is_one_sentence(command, things, arguments, path):
    before = contents(things)
    code, printed = command(arguments, path)
    assert code in (1, 2), printed
    assert contents(things) == before


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder, but for what every start of a run writes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.parent.name not in ("heartbeats", "tensorboard")
        and "new" not in path.relative_to(folder).parts
    }


@contextmanager
def file_size_limit(num_bytes: int) -> Iterator[None]:
    """Every write beyond it fails, in libraries too, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A file system in memory at a folder."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if not hasattr(os, "geteuid") or os.geteuid() or subprocess.run(mount).returncode:
        pytest.skip("only who may mount file systems can make a small or a read-only one")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("arguments", [pytest.param(row[1], id=row[0]) for row in WRITTEN])
def test_a_write_that_fails_keeps_what_was_saved_before(command, things, arguments):
    (things / "new").mkdir()
    resumed = arguments[0] == "pretrain"
    target = "run" if resumed else "new/kept"
    if not resumed:
        assert command(arguments, target)[0] == 0
    before = contents(things), contents(things / "new")
    more = ["--gin.train.num_steps=2"] if resumed else []
    with file_size_limit(64):
        code, printed = command([*arguments, *more], target)
    assert code in (1, 2), printed
    after = contents(things), contents(things / "new")
    assert after == before


@pytest.mark.parametrize("arguments", [pytest.param(row[1], id=row[0]) for row in WRITTEN])
@pytest.mark.parametrize("options", ["ro", "size=64k"])
def test_a_disk_that_is_read_only_or_full_is_one_sentence(command, tmp_path, arguments, options):
    with mounted(tmp_path / "disk", options) as disk:
        if options != "ro":
            (disk / "other").write_bytes(bytes(1 << 16))
        code, printed = command(arguments, str(disk / "x"))
        assert code in (1, 2), printed
        left = [path for path in disk.rglob("*") if path.is_file() and path.name != "other"]
        assert not left
