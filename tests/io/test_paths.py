"""Paths as users write them, and URLs of every scheme."""

import os
import resource

import pytest

from glm_jax.errors import UsageError
from glm_jax.io import files
from glm_jax.io.append import AppendedFile
from glm_jax.io.paths import local_path, resolve_path


@pytest.fixture
def working_folder(tmp_path, monkeypatch):
    folder = tmp_path / "working folder ü"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return folder


@pytest.mark.parametrize(
    "given, expected",
    [
        ("run", "working folder ü/run"),
        ("run/", "working folder ü/run"),
        ("./run//x/", "working folder ü/run/x"),
        ("../run", "run"),
        ("a/../../run", "run"),
        ("~/run", "home/run"),
        ("ein Lauf ü", "working folder ü/ein Lauf ü"),
        ("run [1]", "working folder ü/run [1]"),
    ],
)
def test_a_local_path_becomes_absolute(working_folder, given, expected):
    assert str(resolve_path(given)) == str(working_folder.parent / expected)


def test_a_symbolic_link_is_kept_and_its_parent_is_that_of_its_target(working_folder, tmp_path):
    (tmp_path / "far/target").mkdir(parents=True)
    (working_folder / "link").symlink_to(tmp_path / "far/target")
    assert str(resolve_path("link/run")) == str(working_folder / "link/run")
    assert str(resolve_path("link/../run")) == str(tmp_path / "far/run")


def test_the_file_scheme_is_a_local_path(tmp_path):
    assert str(resolve_path(f"file://{tmp_path}/a/../b/")) == f"{tmp_path}/b"


@pytest.mark.parametrize(
    "given, expected",
    [
        ("gs://bucket/a/../b//c/", "gs://bucket/b/c"),
        ("s3://bucket", "s3://bucket"),
        ("memory://bucket/a b/ü/", "memory://bucket/a b/ü"),
    ],
)
def test_a_url_keeps_its_scheme(given, expected):
    path = resolve_path(given)
    assert str(path) == os.fspath(path) == expected
    assert str(path / "x" / "y.txt") == f"{expected}/x/y.txt"
    assert str((path / "x").parent) == expected


@pytest.mark.parametrize("given", ["", "  "])
def test_an_empty_path_is_refused_by_the_name_of_its_flag(given):
    with pytest.raises(UsageError, match=r"^--out is empty; expected a path or URL$"):
        resolve_path(given, "--out")


@pytest.mark.parametrize(
    "given", ["nothing://x/y", "memory://", "a\0b", "a\udcff", "~nobody-has-this-name/x"]
)
def test_what_names_no_path_is_one_sentence(given):
    with pytest.raises(UsageError, match=r"^--out is "):
        resolve_path(given, "--out")


def test_a_url_is_refused_where_local_files_are_needed():
    with pytest.raises(UsageError, match="DESTINATION is memory://b/x, a URL"):
        local_path(resolve_path("memory://b/x"), "DESTINATION")


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    if request.param == "local":
        yield f"{tmp_path}/a [b] ü"
        return
    yield f"memory://{tmp_path.name}/a [b] ü"
    files.remove_folder(f"memory://{tmp_path.name}")


def test_files_are_written_listed_copied_and_removed(folder, tmp_path):
    files.make_folder(folder)
    files.make_folder(f"{folder}/inner")
    files.write_file(f"{folder}/inner/x.txt", b"1")
    files.write_file(f"{folder}/inner/x.txt", b"2")
    assert files.read_file(f"{folder}/inner/x.txt") == b"2"
    assert files.file_exists(f"{folder}/inner/x.txt") and not files.file_exists(f"{folder}/inner")
    assert files.folder_names(f"{folder}/inner") == ["x.txt"]
    assert files.folder_names(f"{folder}/nothing") == []
    files.copy_folder(folder, tmp_path / "copy")
    assert (tmp_path / "copy/inner/x.txt").read_text() == "2"
    with files.local_copy(folder) as copy:
        assert files.read_file(f"{copy}/inner/x.txt") == b"2"
    assert resolve_path(f"{folder}/inner/x.txt").read_text() == "2"
    files.remove_folder(folder)
    assert not files.file_exists(f"{folder}/inner/x.txt")


def test_a_failed_write_leaves_the_old_content(tmp_path, monkeypatch):
    files.write_file(tmp_path / "x", b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", fail)
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        files.write_file(tmp_path / "x", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


def test_of_several_files_none_is_replaced_before_all_are_written(tmp_path, monkeypatch):
    files.write_files(tmp_path, {"a": b"old a", "b": b"old b"})
    write = type(resolve_path(tmp_path)).write_bytes

    def fill_disk(path, content):
        if content == b"new b":
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(type(resolve_path(tmp_path)), "write_bytes", fill_disk)
    with pytest.raises(OSError, match="No space") as caught:
        files.write_files(tmp_path, {"a": b"new a", "b": b"new b"})
    assert caught.value.filename == str(tmp_path / "b")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "a": b"old a",
        "b": b"old b",
    }


@pytest.mark.parametrize("name", ["a" * 200, "ä" * 120])
def test_a_file_of_a_long_name_is_written(tmp_path, name):
    files.write_file(tmp_path / name, b"x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_new_file_needs_a_folder(tmp_path):
    files.check_new_file(tmp_path / "x", "--json")
    with pytest.raises(UsageError, match=r"--json is .*, but its folder does not exist"):
        files.check_new_file(tmp_path / "no" / "x", "--json")
    with pytest.raises(UsageError, match=r"--json is .*, which is a folder"):
        files.check_new_file(tmp_path, "--json")


@pytest.mark.parametrize("start", [b"", b"start "])
def test_appended_bytes_are_in_the_file(folder, start):
    appended = AppendedFile(f"{folder}/x", start)
    for content in (b"a", b"bc"):
        appended.append(content)
    appended.close()
    assert files.read_file(f"{folder}/x") == start + b"abc"


def test_bytes_that_do_not_fit_are_not_appended_in_part(tmp_path):
    appended = AppendedFile(tmp_path / "x", b"1234")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6, hard))  # as a disk with room for 2 more bytes
    try:
        with pytest.raises(OSError, match="x"):
            appended.append(b"5678")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "x").read_bytes() == b"1234"
    appended.append(b"5")
    appended.close()
    assert (tmp_path / "x").read_bytes() == b"12345"


def test_a_missing_url_is_one_sentence():
    with (
        pytest.raises(UsageError, match="memory://no/where cannot be read"),
        files.local_copy("memory://no/where"),
    ):
        pass
