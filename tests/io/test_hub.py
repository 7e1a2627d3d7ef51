"""The Hub's cache on disk, and downloads from a stand-in for the Hub."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import glm_jax
from glm_jax.cli.main import main
from glm_jax.errors import UsageError
from glm_jax.io.hub import checkpoint_name, checkpoint_path, chosen_files, is_hub_name
from glm_jax.io.paths import resolve_path
from tests.convert.test_published_folder import write_published
from tests.io.hub_stand_in import COMMITS, REPOSITORY, hub
from tests.serve.tiny_checkpoint import byte_tokenizer, tensors

needs_hub = pytest.mark.skipif(
    find_spec("huggingface_hub") is None, reason="huggingface_hub is not installed"
)
MAIN, OTHER = COMMITS["main"], COMMITS["v1"]


def write_cache(folder: Path, snapshots: dict[str, Path], references: dict[str, str]) -> Path:
    """A repository's folder in the cache: snapshots of links to blobs."""
    cache = folder / "models--THUDM--glm-tiny"
    (cache / "blobs").mkdir(parents=True)
    for commit, source in snapshots.items():
        snapshot = cache / "snapshots" / commit
        snapshot.mkdir(parents=True)
        for file in source.iterdir():
            blob = cache / "blobs" / f"{commit[:4]}{len(list((cache / 'blobs').iterdir()))}"
            blob.write_bytes(file.read_bytes())
            (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
    for name, commit in references.items():
        file = cache / "refs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(commit)
    return cache


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    return write_published(tmp_path_factory.mktemp("published") / "glm-tiny")


@pytest.fixture(scope="module")
def cache(published, tmp_path_factory) -> Path:
    references = {"main": MAIN, "v1": OTHER, "pr/1": OTHER}
    return write_cache(
        tmp_path_factory.mktemp("cache"), {MAIN: published, OTHER: published}, references
    )


@pytest.mark.parametrize(
    ("below", "commit"),
    [
        ("", MAIN),
        ("snapshots", MAIN),
        (f"snapshots/{OTHER}", OTHER),
        ("main", MAIN),
        ("v1", OTHER),
        ("pr/1", OTHER),
        (OTHER, OTHER),
        (OTHER[:7], OTHER),
    ],
)
def test_a_folder_of_the_cache_means_a_snapshot(below, commit, cache):
    found = checkpoint_path(cache / below)
    assert Path(found) == cache / "snapshots" / commit
    assert checkpoint_name(found) == "glm-tiny"


def test_a_snapshot_without_reference_is_found_if_it_is_the_only_one(published, tmp_path):
    cache = write_cache(tmp_path, {OTHER: published}, {})
    assert Path(checkpoint_path(cache)) == cache / "snapshots" / OTHER
    write_cache(tmp_path / "two", {MAIN: published, OTHER: published}, {})
    with pytest.raises(UsageError, match=rf"no snapshot of revision 'main'.* {MAIN}, {OTHER}$"):
        checkpoint_path(tmp_path / "two/models--THUDM--glm-tiny")
    with pytest.raises(UsageError, match="no snapshot of revision 'v9'"):
        checkpoint_path(cache / "v9")


def test_other_paths_stay_as_they_are(tmp_path):
    (tmp_path / "snapshots").mkdir()
    for path in (tmp_path, tmp_path / "snapshots", tmp_path / "missing"):
        assert checkpoint_path(path) == resolve_path(path)
    assert checkpoint_path("memory://bucket/run") == resolve_path("memory://bucket/run")
    assert is_hub_name("hf:a/b") and not is_hub_name("hf://a/b") and not is_hub_name("runs/hf:a")


def test_the_cache_is_loaded_filled_and_converted(cache, tmp_path, capsys):
    _, params = glm_jax.load(cache)
    np.testing.assert_array_equal(params["word_embedding"], tensors()["word_embeddings.weight"])
    assert glm_jax.load_tokenizer(cache).fingerprint == byte_tokenizer().fingerprint
    assert main(["fill", f"{cache}/v1", "the [MASK] left", "--max_blank_length=2"]) == 0
    assert main(["convert", str(cache), str(tmp_path / "run")]) == 0
    assert f"source       {cache} (huggingface)" in capsys.readouterr().out
    assert (tmp_path / "run/huggingface/vocab.json").is_file()
    assert not (tmp_path / "run/huggingface/vocab.json").is_symlink()


def test_sub_folders_with_checkpoints_are_named(published, tmp_path):
    (tmp_path / "fp16").symlink_to(published)
    with pytest.raises(UsageError, match=r"config\.json .*, which its sub-folders fp16 have$"):
        glm_jax.load(tmp_path)
    glm_jax.load(tmp_path / "fp16")


def run(code: str, endpoint: str, home: Path, **more: str) -> subprocess.CompletedProcess:
    """Runs Python in a process that takes a server for the Hub."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": "",
        **more,
    }
    environment.pop("HF_HUB_CACHE", None)
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )


# The library waits 24 seconds between its attempts to reach a server.
SHOW = """
import sys
import time
time.sleep = lambda seconds: None
from glm_jax.errors import RunError, UsageError
from glm_jax.io.hub import checkpoint_name, checkpoint_path
for name in sys.argv[1:] or {names!r}:
    try:
        path = checkpoint_path(name)
        files = sorted(file.name for file in path.iterdir())
        print(path.parent.name, path.name, checkpoint_name(path), *files)
    except (RunError, UsageError) as error:
        print(type(error).__name__, error)
"""


@needs_hub
def test_a_repository_is_downloaded_once(published, tmp_path):
    both = tmp_path / "both"
    both.mkdir()
    for file in published.iterdir():
        (both / file.name).write_bytes(file.read_bytes())
    (both / "model.safetensors").write_bytes(b"")
    (both / "flax_model.msgpack").write_bytes(b"")
    names = [f"hf:{REPOSITORY}", f"hf:{REPOSITORY}@v1", f"hf:{REPOSITORY}"]
    with hub({"main": published, "v1": both}) as (endpoint, requested):
        done = run(SHOW.format(names=names), endpoint, tmp_path / "home")
        assert done.returncode == 0, done.stderr
    texts = ["added_tokens.json", "config.json", "merges.txt"]
    last = ["tokenizer_config.json", "vocab.json"]
    first, second, third = (line.split() for line in done.stdout.splitlines())
    assert first == third == ["snapshots", MAIN, "glm-tiny", *texts, "pytorch_model.bin", *last]
    assert second == ["snapshots", OTHER, "glm-tiny", *texts, "model.safetensors", *last]
    assert len(requested) == len(set(requested))
    # Without the server, the copy is taken.
    done = run(SHOW.format(names=names), endpoint, tmp_path / "home")
    assert [line.split()[1] for line in done.stdout.splitlines()] == [MAIN, OTHER, MAIN]
    done = run(SHOW.format(names=names), endpoint, tmp_path / "home", HF_HUB_OFFLINE="1")
    assert [line.split()[1] for line in done.stdout.splitlines()] == [MAIN, OTHER, MAIN]


@needs_hub
def test_a_command_downloads_what_it_is_named(published, tmp_path):
    code = (
        "from glm_jax.cli.main import main; "
        f"raise SystemExit(main(['fill', 'hf:{REPOSITORY}', 'the [MASK]', '--max_blank_length=2']))"
    )
    with hub({"main": published}) as (endpoint, _):
        done = run(code, endpoint, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("the") and "Traceback" not in done.stderr


@needs_hub
def test_what_can_not_be_downloaded_is_said_in_a_sentence(published, tmp_path):
    names = ["hf:THUDM/none", f"hf:{REPOSITORY}@v9", "hf:glm-tiny", "hf:a/b/c", "hf:a/b--c"]
    with hub({"main": published}) as (endpoint, _):
        done = run(SHOW.format(names=names), endpoint, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    missing, revision, without_owner, three, invalid = done.stdout.splitlines()
    assert missing == (
        f"UsageError there is no repository THUDM/none at {endpoint}, or it is private: check the "
        "name, or set HF_TOKEN"
    )
    assert revision == f"UsageError {REPOSITORY} at {endpoint} has no revision 'v9'"
    for line, name in ((without_owner, "hf:glm-tiny"), (three, "hf:a/b/c")):
        assert line == (
            f"UsageError the checkpoint is '{name}'; expected hf:OWNER/NAME or "
            "hf:OWNER/NAME@REVISION"
        )
    assert invalid.startswith("UsageError the checkpoint is 'hf:a/b--c'")
    done = run(SHOW.format(names=names[:1]), "http://127.0.0.1:9", tmp_path / "home")
    assert done.stdout.startswith(
        "RunError THUDM/none can't be downloaded from http://127.0.0.1:9, and "
    )
    assert f"{tmp_path / 'home'}/hub has no copy: " in done.stdout and done.stdout.count("\n") == 1


def test_the_package_is_optional(monkeypatch, capsys):
    original = builtins.__import__

    def without_hub(name, *arguments, **keywords):
        if name.startswith("huggingface_hub"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return original(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without_hub)
    assert main(["fill", "hf:THUDM/glm-2b", "x"]) == 2
    assert capsys.readouterr().err == (
        "glm-jax: hf:THUDM/glm-2b needs the package huggingface_hub, which is not installed: "
        "pip install 'glm_jax[hub]'\n"
    )


def test_weights_are_downloaded_in_one_form():
    files = ["config.json", "model-1.safetensors", "pytorch_model.bin", "tf_model.h5", "fp16/x.bin"]
    assert chosen_files(files) == ["config.json", "model-1.safetensors"]
    assert chosen_files(["README.md", "pytorch_model-1.bin", "cog-pretrain.model", "a.png"]) == [
        "README.md",
        "pytorch_model-1.bin",
        "cog-pretrain.model",
    ]
