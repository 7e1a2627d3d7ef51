"""A task whose best possible accuracy is known: its labels are a noisy function of the text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

# Percent of a split whose label is that of the function; no prediction from the text beats it.
BAYES_ACCURACY = 90.0
LABELS = ("bad", "good")
SIGNS = "xo"  # of the two labels
OTHERS = "abcd"


def write_noisy_task(
    folder: Path, *, num_train: int = 960, num_dev: int = 400, shuffled: bool = False
) -> Path:
    """Texts of four letters, of which the first decides the label, and the second could as well.

    Both labels are equally frequent, and exactly 10% of each are the wrong one, drawn at random.

    Args:
      folder: a new one.
      num_train, num_dev: examples, multiples of 20.
      shuffled: gives the labels to other texts, so that no prediction beats chance.
    """
    folder.mkdir()
    random = np.random.default_rng(5)
    for split, count in (("train", num_train), ("dev", num_dev)):
        function = np.repeat([0, 1], count // 2)
        flipped = np.tile(np.arange(count // 2) < count // 20, 2)
        labels = np.where(flipped, 1 - function, function)
        if shuffled:
            labels = random.permutation(labels)
        rows = [
            {"text": _letters(random, sign), "label": LABELS[label]}
            for sign, label in zip(function, labels, strict=True)
        ]
        _write(folder, split, random.permutation(np.asarray(rows, object)).tolist())
    return folder


def write_instructions(folder: Path, count: int = 640) -> Path:
    """What a network is taught first: to answer by the first letter after p, the second after q.

    The texts are those of `write_noisy_task` behind an instruction, the labels without noise.
    """
    folder.mkdir()
    random = np.random.default_rng(6)
    for split, size in (("train", count), ("dev", 100)):
        rows = []
        for _ in range(size):
            letters, which = _letters(random, int(random.integers(2))), random.integers(2)
            label = LABELS[SIGNS.index(letters[which])]
            rows.append({"text": f"{'pq'[which]} {letters}", "label": label})
        _write(folder, split, rows)
    return folder


def _letters(random: np.random.Generator, first: int) -> str:
    second = SIGNS[random.integers(2)]
    return SIGNS[first] + second + "".join(random.choice(list(OTHERS), 2))


def _write(folder: Path, split: str, rows: list[dict[str, str]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"{split}.jsonl").write_text(text)
