"""The memory that a conversion takes: that of one tensor, whatever the size of the checkpoint."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS, HIDDEN, VOCABULARY = 64, 256, 130_528
MEBIBYTE = 2**20


@pytest.mark.slow
def test_a_conversion_takes_little_more_memory_than_its_largest_tensor(tmp_path):
    sizes = [f"--num_layers={LAYERS}", f"--hidden_size={HIDDEN}", "--repeats=1"]
    command = [ROOT / "benchmarks/convert.py", "--chatglm", *sizes, f"--folder={tmp_path}"]
    done = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    peaks = {
        conversion: int(peak)
        for conversion, peak in re.findall(r"(\w+ -> \w+) .* peak +(\d+) MiB", done.stdout)
    }
    assert peaks.keys() == {"huggingface -> native", "native -> huggingface"}, done.stdout
    largest = 2 * VOCABULARY * HIDDEN / MEBIBYTE
    complete = largest + 2 * LAYERS * 12 * HIDDEN**2 / MEBIBYTE
    allowed = largest + 48
    assert allowed < 0.75 * complete
    assert max(peaks.values()) < allowed, peaks
