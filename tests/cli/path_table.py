"""The path arguments of all commands, and the ways in which users write paths."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import pytest

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
    """Every row with every spelling.

    All are slow but the first spelling and one other, that of the next row being the next one; for
    commands that take long, all but the first.
    """
    return [
        pytest.param(
            *row[1:],
            SPELLINGS[spelling],
            id=f"{row[0]}, {spelling}",
            marks=pytest.mark.slow if index and (row[0].startswith(SLOW) or not chosen) else (),
        )
        for number, row in enumerate(rows)
        for index, spelling in enumerate(spellings)
        for chosen in [index == 1 + number % (len(spellings) - 1)]
    ]


def with_paths(rows: Sequence[tuple], paths: Sequence[str]) -> list:
    """Every row's arguments with every path; slow but for the first path and one other."""
    return [
        pytest.param(
            row[1],
            path,
            id=f"{row[0]}-{path}",
            marks=pytest.mark.slow if index not in (0, 1 + number % (len(paths) - 1)) else (),
        )
        for number, row in enumerate(rows)
        for index, path in enumerate(paths)
    ]
