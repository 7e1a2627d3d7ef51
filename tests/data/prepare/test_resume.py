"""What interrupted and repeated runs leave, and what they never touch."""

import signal
import subprocess
import sys
import time

import pytest

from glm_jax.data.prepare.run import prepare
from glm_jax.data.prepare.scratch import shard_folder
from glm_jax.data.store.store import open_store
from glm_jax.errors import RunError, UsageError
from glm_jax.io.paths import resolve_path
from glm_jax.tokenizer import load_tokenizer
from tests.data.prepare.stores import files_below, write_jsonl

FILTER = """
def odd(document):
    return int(document.text.split()[1].rstrip(".")) % 2 == 1

def failing(document):
    return 1 / 0
"""


KILLED = """
import os, sys
from glm_jax.data.sources import pieces
from glm_jax.data.prepare.run import prepare
from glm_jax.data.prepare.runner import LocalRunner
from glm_jax.tokenizer import load_tokenizer

def progress(documents, num_bytes):
    if documents >= 100:
        os.kill(os.getpid(), 9)

if __name__ == "__main__":
    pieces.PIECE_BYTES = 1000
    source, out, tokenizer = sys.argv[1:]
    prepare([source], out, load_tokenizer(tokenizer), overwrite=True, progress=progress)
"""


@pytest.mark.parametrize("stored_before", [False, True])
def test_a_killed_run_leaves_no_store_and_the_next_one_goes_on(
    corpus, tokenizer, tmp_path, small_shards, stored_before
):
    out, undisturbed = tmp_path / "stores/store", tmp_path / "undisturbed"
    prepare([corpus], undisturbed, tokenizer)
    if stored_before:
        prepare([corpus], out, tokenizer, validation_fraction=0.2)
        before = files_below(out)
    tokenizer.save(tmp_path / "tokenizer")
    (tmp_path / "killed.py").write_text(KILLED)
    command = [sys.executable, tmp_path / "killed.py", corpus, out, tmp_path / "tokenizer"]
    assert subprocess.run(command).returncode == -signal.SIGKILL

    if stored_before:
        assert files_below(out) == before
    else:
        with pytest.raises(UsageError, match="there is no token store"):
            open_store(out)
    done = {path: path.stat().st_mtime_ns for path in out.parent.glob(".store.shards/*/*.npz")}
    assert len(done) > 5
    damaged = min(done)
    damaged.write_bytes(damaged.read_bytes()[:-100])  # as a failing disk may leave it
    seen = {}

    def progress(*_done):
        seen.update(
            {path: path.stat().st_mtime_ns for path in done if path.exists() and path != damaged}
        )

    prepare([corpus], out, tokenizer, overwrite=stored_before, progress=progress)
    del done[damaged]
    assert seen == done  # they were not made again
    assert files_below(out) == files_below(undisturbed)
    assert list(out.parent.iterdir()) == [out]
    assert load_tokenizer(out).fingerprint == tokenizer.fingerprint


def test_what_another_job_left_is_not_used(corpus, tokenizer, tmp_path, small_shards):
    write_jsonl(tmp_path / "more.jsonl", [])
    out = tmp_path / "stores/store"
    (tmp_path / "mine.py").write_text(FILTER)
    failing = f"{tmp_path}/mine.py:failing"
    with pytest.raises(UsageError, match="failed at"):
        prepare([tmp_path / "more.jsonl", corpus], out, tokenizer, filter=failing)
    assert list(out.parent.glob(".store.shards/*/*.npz"))  # that of the empty file
    prepare([corpus], out, tokenizer)
    prepare([corpus], tmp_path / "other", tokenizer)
    assert files_below(out) == files_below(tmp_path / "other")
    assert list(out.parent.iterdir()) == [out]


def test_two_runs_for_one_store_are_not_mixed(corpus, tokenizer, tmp_path, small_shards):
    out = tmp_path / "store"

    def progress(*_done):
        with pytest.raises(RunError, match=r"another process is preparing .*store"):
            prepare([corpus], out, tokenizer)

    prepare([corpus], out, tokenizer, progress=progress)
    assert open_store(out).split("train").num_documents > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.jsonl", "store"]


def test_two_runs_for_one_store_in_a_bucket_are_not_mixed():
    out = "memory://bucket/store"
    with (
        shard_folder(out, "one"),
        pytest.raises(RunError, match=f"another process is preparing {out}: process"),
        shard_folder(out, "another"),
    ):
        pass
    assert not resolve_path("memory://bucket/.store.shards").exists()


def test_a_store_about_to_be_replaced_when_the_run_was_killed_comes_back(
    corpus, tokenizer, tmp_path
):
    out = tmp_path / "store"
    prepare([corpus], out, tokenizer)
    before = files_below(out)
    out.rename(tmp_path / ".store.replaced")  # as a kill between the two renames leaves it
    with pytest.raises(UsageError, match="already"):
        prepare([corpus], out, tokenizer)
    assert files_below(out) == before


def test_shards_left_after_the_store_was_whole_are_removed(corpus, tokenizer, tmp_path):
    out = tmp_path / "store"
    leftover = tmp_path / ".store.shards/job"
    leftover.mkdir(parents=True)
    (leftover / "00000000-00000000.npz").write_bytes(b"left")
    time.sleep(0.02)  # so that the times of files differ
    prepare([corpus], tmp_path / "elsewhere", tokenizer)
    (tmp_path / "elsewhere").rename(out)
    with pytest.raises(UsageError, match="already"):
        prepare([corpus], out, tokenizer)
    assert not leftover.parent.exists()


def test_a_store_is_replaced_only_when_asked_and_only_by_a_whole_one(corpus, tokenizer, tmp_path):
    out = tmp_path / "store"
    prepare([corpus], out, tokenizer, validation_fraction=0.1)
    before = files_below(out)
    with pytest.raises(UsageError, match="already"):
        prepare([corpus], out, tokenizer)
    with pytest.raises(UsageError, match="validation split would be empty"):
        prepare([corpus], out, tokenizer, validation_fraction=1e-9, overwrite=True)
    assert files_below(out) == before
    prepare([corpus], out, tokenizer, validation_fraction=0.3, overwrite=True)
    assert files_below(out) != before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_other_folders_and_files_are_never_replaced(corpus, tokenizer, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/dear.txt").write_text("keep me")
    for out in (tmp_path / "letters", corpus):
        with pytest.raises(UsageError, match="is not a token store"):
            prepare([corpus], out, tokenizer, overwrite=True)
    assert (tmp_path / "letters/dear.txt").read_text() == "keep me"
    (tmp_path / "empty").mkdir()
    prepare([corpus], tmp_path / "empty", tokenizer)
    assert open_store(tmp_path / "empty").split("train").num_documents > 0
