"""`glm-jax prepare` killed at random moments gives, in the end, the store of an undisturbed run."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from glm_jax.tokenizer import train_sentencepiece

ROOT = Path(__file__).resolve().parents[2]

# Like the command, with shards so small that a kill falls between any two of them.
PROGRAM = """
import sys
from glm_jax.cli.main import main
from glm_jax.data.sources import pieces
from glm_jax.data.store import arrays

if __name__ == "__main__":
    pieces.PIECE_BYTES = 20_000
    arrays.SHARD_ELEMENTS = 8_192
    arrays.CHUNK_ELEMENTS = 1_024
    sys.exit(main(sys.argv[1:]))
"""


def files_below(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts preparing a corpus of two files and some duplicates."""
    folder = tmp_path_factory.mktemp("corpus")
    numbers = random.Random(0)
    texts = [
        " ".join(f"word{numbers.randrange(300)}" for _ in range(200)) + "." for _ in range(600)
    ]
    texts += texts[:100]
    for name, part in {"a.jsonl": texts[:400], "b.jsonl": texts[400:]}.items():
        (folder / name).write_text("".join(json.dumps({"text": text}) + "\n" for text in part))
    train_sentencepiece(texts, folder / "tokenizer", vocab_size=320).save(folder / "tokenizer")
    (folder / "program.py").write_text(PROGRAM)

    def started(out):
        return subprocess.Popen(
            [
                sys.executable, folder / "program.py", "prepare", folder / "a.jsonl",
                folder / "b.jsonl", f"--out={out}", f"--tokenizer={folder}/tokenizer",
                "--validation_fraction=0.1", "--drop_duplicates", "--workers=2",
            ],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip

    return started


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory):
    """The store of a run that nobody kills, and the seconds that the run took."""
    out = tmp_path_factory.mktemp("undisturbed") / "store"
    before = time.perf_counter()
    process = start(out)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    return files_below(out), time.perf_counter() - before


def kill_and_go_on(start, undisturbed, folder, kills, seed):
    """Kills runs at `kills` random moments, lets the last one end, and compares the stores."""
    files, seconds = undisturbed
    moments = random.Random(seed)
    out = folder / "store"
    for _ in range(kills):
        shards_before = shard_times(folder)
        process = start(out)
        time.sleep(moments.uniform(0.3, 1.0) * seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if out.exists():  # this one came to its end
            assert files_below(out) == files
            return
        kept = {name: at for name, at in shard_times(folder).items() if name in shards_before}
        assert kept == shards_before  # what was done is not done again
    process = start(out)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    assert files_below(out) == files
    assert [path.name for path in folder.iterdir()] == ["store"]


def shard_times(folder):
    return {str(path): path.stat().st_mtime_ns for path in folder.glob(".store.shards/*/*.npz")}


@pytest.mark.slow  # data/prepare/test_resume.py has the same in one process
def test_a_killed_run_goes_on(start, undisturbed, tmp_path):
    kill_and_go_on(start, undisturbed, tmp_path, kills=2, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_kill_at_any_moment_changes_nothing(start, undisturbed, tmp_path, seed):
    kill_and_go_on(start, undisturbed, tmp_path, kills=2, seed=1 + seed)
