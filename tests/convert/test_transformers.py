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
from tests.convert.transformers_check import environments
from tests.convert.transformers_check.environments import ACCELERATE, cached_environment
from tests.convert.transformers_check.folders import CASES, Case, export, record
from tests.convert.transformers_check.token_folders import (
    TokenFolder,
    published_tokenizers,
    random_texts,
    trained_tokenizers,
    write_token_folder,
)

LOGITS, GRADIENTS = 1e-5, 1e-4
SCRIPTS = Path(environments.__file__).parent
TEXTS_OF_EACH_SORT = 100

pytestmark = pytest.mark.skipif(
    find_spec("torch") is None or find_spec("transformers") is None,
    reason="torch and transformers are not installed",
)


@pytest.fixture(scope="module")
def exported(shared: Path, tmp_path_factory):
    """Makes the folder of a case, once."""
    made: dict[str, Path] = {}
    work = tmp_path_factory.mktemp("exported")
    trained = trained_tokenizers(tmp_path_factory.mktemp("trained"))
    texts = json.loads((shared / "goldens/e_tokenizers/texts.json").read_text())
    texts += ["a\x1c [MASK]", " \x1c", "\u3000o\u1161e\u0308\u0301", "<s></s><mask>[SEP]", "\u0344"]

    def make(case: Case) -> Path:
        if case.name not in made:
            files = [shared / "vocabs" / file for file in case.files]
            tokenizer = trained.get(case.name) or glm_jax.load_tokenizer(
                case.kind, *files, **case.options
            )
            folder = made[case.name] = export(case, tokenizer, work)
            record(case, tokenizer, folder, texts)
        return made[case.name]

    return make


@pytest.fixture(scope="module")
def token_folders(shared: Path, tmp_path_factory) -> list[TokenFolder]:
    """A folder for a tokenizer of every kind."""
    work = tmp_path_factory.mktemp("tokens")
    texts = json.loads((shared / "goldens/e_tokenizers/texts.json").read_text())
    texts += random_texts(TEXTS_OF_EACH_SORT)
    (work / "made").mkdir()
    tokenizers = {**published_tokenizers(shared / "vocabs"), **trained_tokenizers(work / "made")}
    return [
        write_token_folder(work / name, tokenizer, texts) for name, tokenizer in tokenizers.items()
    ]


def run_script(python: str | Path, script: str, *folders: Path) -> dict:
    """What a script of `transformers_check` finds, run by a Python."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["HF_MODULES_CACHE"] = str(folders[0].parent / "modules")
    done = subprocess.run(
        [str(python), str(SCRIPTS / script), *map(str, folders)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def assert_tokens_agree(python: str | Path, folders: list[TokenFolder]) -> None:
    """Every text has the same ids, also after saving; what was saved is read by glm_jax."""
    found = run_script(python, "check_tokens.py", *(each.folder for each in folders))["folders"]
    assert len(found) == len(folders) > 8
    for each in folders:
        result = found[each.folder.name]
        assert not result["loaded"] and not result["again"], (each.folder.name, result)
        saved = glm_jax.load_tokenizer(result["saved_folder"])
        assert saved.fingerprint == each.tokenizer.fingerprint


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
    assert_agrees(run_script(sys.executable, "check.py", folder), folder)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("accelerate") is None, reason="the Trainer needs accelerate")
@pytest.mark.parametrize("case", CASES[1:], ids=lambda case: case.name)
def test_every_tokenizer_and_dtype_works_with_the_installed_version(case, exported):
    folder = exported(case)
    assert_agrees(run_script(sys.executable, "check.py", folder), folder)


@pytest.fixture(scope="module", params=list(ACCELERATE))
def older(request) -> Path:
    """The Python of an environment with an older version."""
    try:
        return cached_environment(request.param)
    except subprocess.CalledProcessError as error:
        reason = (error.stderr or "").strip().splitlines()[-1:] or ["pip failed"]
        pytest.skip(f"transformers {request.param} can't be installed here: {reason[0]}")


def test_every_kind_of_tokenizer_works_with_the_installed_version(token_folders):
    assert_tokens_agree(sys.executable, token_folders)


@pytest.mark.slow
def test_every_kind_of_tokenizer_works_with_older_versions(older, token_folders):
    assert_tokens_agree(older, token_folders)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_folder_works_with_older_versions(case, older, exported):
    folder = exported(case)
    assert_agrees(run_script(older, "check.py", folder), folder)
