"""What a command's failure becomes: one sentence and an exit code, never a traceback."""

import io
import os
import subprocess
import sys

import pytest

from glm_jax.cli import main as command_line
from glm_jax.cli import tokenizer
from tests.conftest import HANG_SECONDS

FULL = "/dev/full"


@pytest.fixture
def failing(monkeypatch):
    """Makes `glm-jax tokenizer` raise an exception."""

    def make(error: BaseException) -> None:
        def run(arguments):
            raise error

        monkeypatch.setattr(tokenizer, "run", run)

    return make


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (PermissionError(13, "Permission denied", "runs/a"), 1, "runs/a: Permission denied"),
        (OSError(18, "Invalid link", "a", None, "b"), 1, "a: b: Invalid link"),
        (OSError("no temporary folder is usable"), 1, "no temporary folder is usable"),
        (
            UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
            2,
            "text that can't be read or written: 'utf-8' codec can't decode byte 0xff in position "
            "0: invalid start byte",
        ),
        (OverflowError("too large"), 2, "a number is out of range: too large"),
        (RecursionError("deep"), 2, "the input is nested too deeply"),
        (MemoryError("an array of 9 TiB"), 1, "out of memory: an array of 9 TiB"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_exception_is_one_sentence(failing, capsys, error, code, sentence):
    failing(error)
    assert command_line.main(["tokenizer", "show", "folder"]) == code
    printed = capsys.readouterr()
    assert printed.err == f"glm-jax: {sentence}\n"
    assert printed.out == ""


def test_a_fault_of_the_program_keeps_its_traceback(failing):
    failing(KeyError("a bug"))
    with pytest.raises(KeyError):
        command_line.main(["tokenizer", "show", "folder"])


def test_standard_input_is_utf_8_in_any_locale(failing, monkeypatch):
    given = io.TextIOWrapper(io.BytesIO("\ufeffein é\n".encode()), encoding="latin-1")
    monkeypatch.setattr(sys, "stdin", given)
    failing(OSError("end"))
    command_line.main(["tokenizer", "show", "folder"])
    assert given.read() == "ein é\n"


def test_bad_bytes_on_standard_input_are_an_error(failing, monkeypatch):
    given = io.TextIOWrapper(io.BytesIO(b"a \xff\n"), errors="surrogateescape")
    monkeypatch.setattr(sys, "stdin", given)
    failing(OSError("end"))
    command_line.main(["tokenizer", "show", "folder"])
    with pytest.raises(UnicodeDecodeError):
        given.read()


def run(redirections: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`glm-jax` under a shell's redirections, with buffered output as Python has by default."""
    return subprocess.run(
        [
            "sh",
            "-c",
            f'exec "$@" {redirections}',
            "sh",
            sys.executable,
            "-m",
            "glm_jax",
            *arguments,
        ],
        env={name: os.environ[name] for name in os.environ if name != "PYTHONUNBUFFERED"},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )


@pytest.mark.skipif(not os.path.exists(FULL), reason="this system has no device that is full")
def test_a_full_standard_output_is_one_sentence(tiny_store):
    finished = run(f">{FULL}", "tokenizer", "show", str(tiny_store), "text")
    assert (finished.returncode, finished.stderr) == (1, "glm-jax: No space left on device\n")


@pytest.mark.skipif(not os.path.exists(FULL), reason="this system has no device that is full")
def test_a_full_standard_error_leaves_the_exit_code():
    finished = run(f"2>{FULL}", "tokenizer", "show", "no such folder", "text")
    assert (finished.returncode, finished.stdout, finished.stderr) == (2, "", "")


def test_output_that_the_locale_lacks_is_escaped(tiny_store, monkeypatch):
    printed = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", printed)
    assert command_line.main(["tokenizer", "show", str(tiny_store), "é"]) == 0
    assert "\\xe9" in printed.buffer.getvalue().decode("ascii")  # pyright: ignore


def test_a_reader_that_has_gone_is_no_error(tiny_store):
    finished = run("| true", "tokenizer", "show", str(tiny_store), "text")
    assert finished.stderr == ""


def test_closed_standard_streams_are_allowed(tiny_store):
    assert run("<&- >&-", "tokenizer", "show", str(tiny_store), "text").returncode == 0
    finished = run("<&- >&- 2>&-", "tokenizer", "show", str(tiny_store), "text")
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")
    finished = run("<&-", "fill", str(tiny_store))
    assert finished.returncode == 2
    assert finished.stderr.startswith("glm-jax: no text to fill")
