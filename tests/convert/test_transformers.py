"""Exported folders in Hugging Face's transformers, the installed version and older ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import glm_jax
from glm_jax.convert.open import open_source
from glm_jax.convert.tensors import same_bits
from tests.convert.transformers_check import check
from tests.convert.transformers_check.environments import ACCELERATE, make_environment
from tests.convert.transformers_check.folders import CASES, Case, export, record

LOGITS, GRADIENTS = 1e-5, 1e-4

pytestmark = pytest.mark.skipif(
    find_spec("torch") is None or find_spec("transformers") is None,
    reason="torch and transformers are not installed",
)


@pytest.fixture(scope="module")
def exported(shared: Path, tmp_path_factory):
    """Makes the folder of a case, once."""
    made: dict[str, Path] = {}
    work = tmp_path_factory.mktemp("exported")
    texts = json.loads((shared / "goldens/e_tokenizers/texts.json").read_text())
    texts += ["a\x1c [MASK]", " \x1c", "\u3000o\u1161e\u0308\u0301", "<s></s><mask>[SEP]", "\u0344"]

    def make(case: Case) -> Path:
        if case.name not in made:
            files = [shared / "vocabs" / file for file in case.files]
            tokenizer = glm_jax.load_tokenizer(case.kind, *files, **case.options)
            folder = made[case.name] = export(case, tokenizer, work)
            record(case, tokenizer, folder, texts)
        return made[case.name]

    return make


def run_check(python: str | Path, folder: Path) -> dict:
    """What `check.py` finds, run by a Python."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["HF_MODULES_CACHE"] = str(folder.parent / "modules")
    done = subprocess.run(
        [str(python), check.__file__, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def assert_agrees(found: dict, folder: Path) -> None:
    """All of it within the tolerances, and what was saved again loads with equal bits."""
    assert found["token_ids"] == found["greedy"] == found["beams"] == 0, found
    assert found["logits"] <= LOGITS and found["choices"] <= LOGITS, found
    assert found["classes"] and found["sampled"] and found["saved"], found
    assert found["gradients"] <= GRADIENTS, found
    assert found["checkpointed_gradients"] <= GRADIENTS, found
    with open_source(folder) as ours, open_source(found["saved_folder"]) as theirs:
        assert theirs.tensors == ours.tensors
        for name in ours.tensors:
            assert same_bits(ours.read(name), theirs.read(name)), name
    fingerprints = [
        glm_jax.load_tokenizer(path).fingerprint for path in (folder, found["saved_folder"])
    ]
    assert fingerprints[0] == fingerprints[1]


@pytest.mark.skipif(find_spec("accelerate") is None, reason="the Trainer needs accelerate")
@pytest.mark.parametrize("case", CASES[:1], ids=lambda case: case.name)
def test_a_folder_works_with_the_installed_version(case, exported):
    folder = exported(case)
    assert_agrees(run_check(sys.executable, folder), folder)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("accelerate") is None, reason="the Trainer needs accelerate")
@pytest.mark.parametrize("case", CASES[1:], ids=lambda case: case.name)
def test_every_tokenizer_and_dtype_works_with_the_installed_version(case, exported):
    folder = exported(case)
    assert_agrees(run_check(sys.executable, folder), folder)


@pytest.fixture(scope="module", params=list(ACCELERATE))
def older(request, tmp_path_factory) -> Path:
    """The Python of an environment with an older version."""
    folder = tmp_path_factory.mktemp("environment") / request.param.replace(".", "_")
    try:
        return make_environment(folder, request.param)
    except subprocess.CalledProcessError:
        pytest.skip(f"transformers {request.param} can't be installed here")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_folder_works_with_older_versions(case, older, exported):
    folder = exported(case)
    assert_agrees(run_check(older, folder), folder)
