"""Preparing on Apache Beam, in an environment of its own, gives the store of one machine."""

import gzip
import json
import os
import subprocess
from pathlib import Path

import pytest

from glm_jax.data.prepare.run import prepare
from glm_jax.tokenizer import train_sentencepiece

ROOT = Path(__file__).resolve().parents[3]

TEXTS = [f"Document {number % 900}.\n\nIt says {number % 900}." * 20 for number in range(1500)]


@pytest.fixture(scope="module")
def beam_python():
    """A Python that has Apache Beam; `make test-beam` makes one."""
    python = Path(os.environ.get("BEAM_PYTHON", ROOT / ".venv/beam/bin/python"))
    if not python.exists():
        pytest.skip(f"no Python with Apache Beam at {python}: run `make test-beam`")
    return python


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Sources of every kind, with duplicates and a broken file, and a tokenizer."""
    folder = tmp_path_factory.mktemp("corpus")
    lines = [json.dumps({"text": text}) + "\n" for text in TEXTS]
    (folder / "texts").mkdir()
    (folder / "texts/a.jsonl").write_text("".join(lines[:700]))
    (folder / "texts/b.jsonl.gz").write_bytes(gzip.compress("".join(lines[700:]).encode()))
    (folder / "texts/c.txt").write_text("\n\n".join(TEXTS[:40]))
    (folder / "texts/d.jsonl.gz").write_bytes(gzip.compress(lines[0].encode() * 99)[:-9])
    train_sentencepiece(TEXTS, folder / "tokenizer", vocab_size=330).save(folder / "tokenizer")
    return folder


def run_beam(python, *arguments):
    return subprocess.run(
        [python, "-m", "glm_jax", "prepare", *map(str, arguments), "--runner=DirectRunner"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def files_below(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "report.png"  # drawn by each environment's own library
    }


@pytest.mark.slow
def test_beam_writes_the_same_store_bit_for_bit(beam_python, corpus, tmp_path):
    from glm_jax.tokenizer import load_tokenizer

    prepare(
        [corpus / "texts"],
        tmp_path / "one_machine",
        load_tokenizer(corpus / "tokenizer"),
        validation_fraction=0.1,
        test_fraction=0.1,
        drop_duplicates=True,
    )
    result = run_beam(
        beam_python,
        corpus / "texts",
        f"--out={tmp_path}/on_beam",
        f"--tokenizer={corpus}/tokenizer",
        "--validation_fraction=0.1",
        "--test_fraction=0.1",
        "--drop_duplicates",
    )
    assert result.returncode == 0, result.stderr
    assert files_below(tmp_path / "on_beam") == files_below(tmp_path / "one_machine")
    report = json.loads((tmp_path / "on_beam/report.json").read_bytes())
    assert report["duplicates"] > 500
    assert len(report["incidents"]["unreadable_files"]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["on_beam", "one_machine"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "flag, message",
    [
        ("--text_key=body", "has the key 'body'; keys found: text"),
        ("--workers=3", "--workers is for this machine"),
        ("--runner=NoSuchRunner", "Apache Beam has no runner 'NoSuchRunner'"),
    ],
)
def test_troubles_on_beam_are_one_sentence(beam_python, corpus, tmp_path, flag, message):
    runner = ["--runner=DirectRunner"] if "runner" not in flag else []
    result = subprocess.run(
        [
            beam_python, "-m", "glm_jax", "prepare", corpus / "texts", f"--out={tmp_path}/store",
            f"--tokenizer={corpus}/tokenizer", *runner, flag,
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert result.returncode == 2
    assert message in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []
