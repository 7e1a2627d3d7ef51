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

ROOT = Path(__file__).parents[2]
RECORDED_STEP = ROOT / "docs/tpu/glm_10b-v4-4x4x4.json"
SPACED = "ein Ordner ü"  # a link to the folder of all things

# Name of the argument; the command, in which {} is the path; what it names; exit code; a part of
# what is printed. Where an answer would take long, a later mistake shows that the path was found.
NO_SPLIT, QUICK = "--split=nothing", "--max_blank_length=1"
READ = [
    ("fill CHECKPOINT", ["fill", "{}", "x [MASK]", QUICK], "run", 0, "x"),
    ("fill --file", ["fill", "run", "--file={}", QUICK], "texts.txt", 0, "x"),
    ("fill --tokenizer", ["fill", "run", "x [MASK]", QUICK, "--tokenizer={}"], "store", 0, "x"),
    (
        "fill --tokenizer_files",
        ["fill", "run", "x", QUICK, "--tokenizer=sentencepiece", "--tokenizer_files={}"],
        "store/tokenizer/pieces.model",
        0,
        "x",
    ),
    ("evaluate RUN", ["evaluate", "{}", NO_SPLIT], "run", 2, "no split 'nothing'"),
    ("hosts RUN_FOLDER", ["hosts", "{}"], "run", 0, "process 0"),
    ("convert SOURCE", ["convert", "{}", "new/converted"], "run", 0, "checked"),
    ("parity A", ["parity", "{}", "run", "--length=4", "--out=new/parity"], "run", 0, "the same"),
    ("parity B", ["parity", "run", "{}", "--length=4", "--out=new/parity"], "run", 0, "the same"),
    (
        "parity --inputs",
        ["parity", "run", "run", "--inputs={}", "--out=new/parity"],
        "batch.npz",
        0,
        "the same",
    ),
    ("inspect --gin_file", ["inspect", "--gin_file={}", "--row=99"], "tiny.gin", 2, "--row is 99"),
    (
        "data.store",
        ["inspect", "--gin_file=tiny.gin", "--gin.data.store={}", NO_SPLIT],
        "store",
        2,
        "no split 'nothing'",
    ),
    (
        "data.supervised",
        [
            "inspect",
            "--gin_file=tiny.gin",
            "--gin.data.supervised={}",
            "--gin.data.supervised_share=0.5",
            NO_SPLIT,
        ],
        "examples.jsonl",
        2,
        "no split 'nothing'",
    ),
    ("pretrain --gin_file", ["pretrain", "--gin_file={}"], "tiny.gin", 0, "this run is done"),
    (
        "train.run_folder, resumed",
        ["pretrain", "--gin_file=tiny.gin", "--gin.train.run_folder={}"],
        "run",
        0,
        "this run is done",
    ),
    (
        "prepare SOURCE",
        ["prepare", "{}", "--out=new/store", "--tokenizer=store", "--workers=1"],
        "corpus",
        0,
        "token store",
    ),
    (
        "prepare --tokenizer",
        ["prepare", "corpus", "--out=new/store", "--tokenizer={}", "--workers=1"],
        "run",
        0,
        "token store",
    ),
    (
        "prepare --filter",
        ["prepare", "corpus", "--out=new/s", "--tokenizer=run", "--workers=1", "--filter={}:keep"],
        "keep.py",
        0,
        "token store",
    ),
    ("tokenizer show FOLDER", ["tokenizer", "show", "{}", "x"], "store", 0, "fingerprint"),
    (
        "tokenizer show KIND FILE",
        ["tokenizer", "show", "sentencepiece", "{}", "x"],
        "store/tokenizer/pieces.model",
        0,
        "fingerprint",
    ),
    (
        "tokenizer train SOURCE",
        ["tokenizer", "train", "{}", "--out=new/tokenizer", "--vocab_size=400"],
        "corpus",
        0,
        "new/tokenizer",
    ),
    ("serve CHECKPOINT", ["serve", "{}", "--port=0"], "run", 2, "found the checkpoint"),
    (
        "serve --token_file",
        ["serve", "run", "--port=99999", "--token_file={}"],
        "token.txt",
        2,
        "--port is 99999",
    ),
    (
        "compile --gin_file",
        ["compile", "--topology=v5e:2x2", "--gin_file={}", "--gin.train.nothing=1"],
        "tiny.gin",
        2,
        "'nothing'",
    ),
    (
        "compile --compare",
        ["compile", "--topology=v5e:2x2", "--compare", "{}", "examples.json"],
        "step.json",
        2,
        "examples.json is no report",
    ),
]
# Name of the argument; the command; a file that is then there, in the path or the path itself.
WRITTEN = [
    (
        "prepare --out",
        ["prepare", "corpus", "--out={}", "--tokenizer=store", "--workers=1", "--overwrite"],
        "metadata.json",
    ),
    (
        "tokenizer train --out",
        ["tokenizer", "train", "corpus", "--out={}", "--vocab_size=400", "--overwrite"],
        "glm_tokenizer.json",
    ),
    ("convert DESTINATION", ["convert", "run", "{}"], "checkpoints"),
    ("parity --out", ["parity", "run", "run", "--length=4", "--out={}"], "parity.json"),
    ("inspect --picture", ["inspect", "--gin_file=tiny.gin", "--row=0", "--picture={}"], ""),
    ("compile --json", ["compile", "--topology=v5e:2x2", "--gin_file=tiny.gin", "--json={}"], ""),
    (
        "train.run_folder",
        ["pretrain", "--gin_file=tiny.gin", "--gin.train.run_folder={}"],
        "loss.png",
    ),
]
# Each takes a name in the folder of all things, which is the working folder and the home folder.
SPELLINGS: dict[str, Callable[[str], str]] = {
    "all at once": lambda name: f"~/{SPACED}/corpus/../{SPACED}//./{name}/",
    "relative": lambda name: name,
    "with ..": lambda name: f"corpus/../{name}",
    "with ~": lambda name: f"~/{name}",
    "through a link": lambda name: f"{SPACED}/{name}",
    "with a slash": lambda name: f"{name}/",
    "absolute": lambda name: os.path.abspath(name),
}
# Minutes in all, for what "all at once" shows already.
SLOW = ("parity", "prepare", "inspect --picture", "train.run_folder")


def table(rows: Sequence[tuple], spellings: Sequence[str]) -> list:
    """Every row with every spelling; for commands that take long, all but the first are slow."""
    return [
        pytest.param(
            *row[1:],
            SPELLINGS[spelling],
            id=f"{row[0]}, {spelling}",
            marks=[pytest.mark.slow] if index and row[0].startswith(SLOW) else [],
        )
        for row in rows
        for index, spelling in enumerate(spellings)
    ]


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
    monkeypatch.setattr("glm_jax.compile.step.compile_step", lambda *_: recorded)
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


@pytest.mark.parametrize("path", ["", "  ", "nothing here", "token.txt/inside", "~nobody-here/x"])
@pytest.mark.parametrize(
    "arguments",
    [pytest.param(row[1], id=row[0]) for row in READ if row[0] != "train.run_folder, resumed"],
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


@pytest.mark.parametrize("path", ["", " ", "token.txt/inside", "/proc/nothing/x", "~nobody-here/x"])
@pytest.mark.parametrize("arguments", [pytest.param(row[1], id=row[0]) for row in WRITTEN])
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
