"""Which files of a folder are read, which are not, and what is said about those."""

import gzip
import json
import os
import sys

import pytest

from glm_jax.data.sources import pieces
from glm_jax.data.sources.corpus import documents
from glm_jax.data.sources.document import ReadStats
from glm_jax.errors import UsageError

LINE = '{"text": "from NAME"}\n'
ARRAY = "a JSON array, expected one JSON object a line"
PRETTY = "pretty-printed JSON, expected one JSON object a line"


def read(*sources, **options):
    """The texts, and what happened to the rest."""
    stats = ReadStats()
    return [document.text for document in documents(sources, stats=stats, **options)], stats


def lines_of(name):
    return LINE.replace("NAME", name).encode()


def test_every_name_of_a_format_is_read(tmp_path):
    plain = ["B.JSONL", "a.jsonl", "d.json", "f.ndjson", "g.Json"]
    compressed = ["c.json.gz", "e.JSONL.GZ", "h.ndjson.Gz"]
    for name in plain:
        (tmp_path / name).write_bytes(lines_of(name))
    for name in compressed:
        (tmp_path / name).write_bytes(gzip.compress(lines_of(name)))
    (tmp_path / "i.TXT").write_text("from i.TXT")
    found, stats = read(tmp_path)
    assert found == [f"from {name}" for name in sorted([*plain, *compressed, "i.TXT"])]
    assert stats == ReadStats()


def test_names_are_read_alike_whatever_their_size(tmp_path, monkeypatch):
    for name in ("a.JSONL", "b.json", "c.TXT"):
        (tmp_path / name).write_bytes(lines_of(name) * 9)
    (tmp_path / "d.json.GZ").write_bytes(gzip.compress(lines_of("d") * 9))
    found, stats = read(tmp_path)
    monkeypatch.setattr(pieces, "PIECE_BYTES", 50)
    assert read(tmp_path) == (found, stats)
    assert len(found) == 28


def test_what_is_ignored_is_counted_by_kind(tmp_path):
    for name in ("a.md", "b.MD", "table.csv.gz", "pages.tar.gz", "README", ".hidden.txt"):
        (tmp_path / name).write_text("not a source")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/x.txt").write_text("not a source")
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "good.txt").write_text("good")
    found, stats = read(tmp_path)
    assert found == ["good"]
    assert stats.ignored_files == {
        ".md": 2, ".csv.gz": 1, ".tar.gz": 1, "without an ending": 1, "hidden": 2,
        "no regular file": 1,
    }  # fmt: skip
    assert stats.lines() == [
        "ignored files: 1 .csv.gz, 2 .md, 1 .tar.gz, 2 hidden, 1 no regular file, "
        "1 without an ending"
    ]


@pytest.mark.parametrize(
    ("content", "in_folder", "by_itself"),
    [
        ('[\n{"text": "a"},\n{"text": "b"}\n]\n', ARRAY, ARRAY),
        ('[{"text": "a"}, {"text": "b"}]', ARRAY, ARRAY),
        ('["a", "b"]', ARRAY, ARRAY),
        ('{\n  "text": "a"\n}\n', PRETTY, PRETTY),
        (
            '{"name": "n", "size": 3}\n',
            "no key 'text' in its first lines",
            "keys found: name, size",
        ),
        ("plain text\n", "no lines of JSON objects", "keys found: none"),
    ],
)
def test_json_that_is_something_else_is_named(tmp_path, content, in_folder, by_itself):
    (tmp_path / "a.jsonl").write_bytes(lines_of("a.jsonl"))
    (tmp_path / "b.json").write_text(content)
    found, stats = read(tmp_path)
    assert found == ["from a.jsonl"]
    [named] = stats.unreadable_files
    assert named.startswith(f"{tmp_path}/b.json ({in_folder}")
    with pytest.raises(UsageError, match=r"b\.json") as caught:
        read(tmp_path / "b.json")
    assert by_itself in str(caught.value)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'[\n{"text": "a"},\n{"text": "b"}\n]\n', ARRAY),
        (b'[{"text": "a"},\n{"text": "b"}]', ARRAY),
        (b'\xef\xbb\xbf[{"text": "a"}, {"text": "b"}]', ARRAY),
        (b'{\r\n  "text": "a"\r\n}\r\n', PRETTY),
        (LINE.encode("utf-16"), "UTF-16 text, expected UTF-8"),
        (LINE.encode("utf-16-be"), "UTF-16 text, expected UTF-8"),
        (LINE.encode("utf-32"), "UTF-32 text, expected UTF-8"),
        (
            gzip.compress(LINE.encode(), mtime=0),
            "compressed as gzip, which its name should say (.gz)",
        ),
    ],
)
def test_lines_in_another_form_are_refused_in_a_sentence(tmp_path, content, reason, suffix):
    name = tmp_path / f"a.jsonl{suffix}"
    name.write_bytes(gzip.compress(content, mtime=0) if suffix else content)
    with pytest.raises(UsageError) as caught:
        read(tmp_path)
    assert str(caught.value) == f"{name} is {reason}"


def test_text_in_another_form_is_named_and_left_out(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_bytes(gzip.compress(b"text", mtime=0))
    (tmp_path / "b.txt").write_text("text in UTF-16", encoding="utf-16")
    (tmp_path / "c.txt").write_text("good")
    for piece_bytes in (pieces.PIECE_BYTES, 1):
        monkeypatch.setattr(pieces, "PIECE_BYTES", piece_bytes)
        found, stats = read(tmp_path)
        assert found == ["good"]
        assert stats.unreadable_files == [
            f"{tmp_path}/a.txt (compressed as gzip, which its name should say (.gz))",
            f"{tmp_path}/b.txt (UTF-16 text, expected UTF-8)",
        ]


def test_a_first_line_that_is_no_object_is_only_skipped(tmp_path):
    (tmp_path / "a.jsonl").write_text('["text", "url"]\n{"text": "good"}\n')
    assert read(tmp_path) == (["good"], ReadStats(bad_json_lines=1))


def test_linked_folders_are_read_once(tmp_path):
    (tmp_path / "outside/deep").mkdir(parents=True)
    (tmp_path / "outside/deep/a.txt").write_text("outside")
    folder = tmp_path / "folder"
    (folder / "real").mkdir(parents=True)
    (folder / "real/b.txt").write_text("inside")
    for name, target in {
        "again": folder / "real",
        "first": tmp_path / "outside",
        "second": tmp_path / "outside/deep",
        "real/up": folder,
        "self": folder / "self",
        "gone": folder / "nowhere",
    }.items():
        (folder / name).symlink_to(target)
    (tmp_path / "outside/deep/back").symlink_to(folder)
    found, stats = read(folder)
    assert found == ["outside", "inside"]
    assert stats.ignored_files == {"link to a folder above": 1}
    gone, loop = stats.unreadable_files
    assert gone == f"{folder}/gone (a link to {folder}/nowhere, which does not exist)"
    assert loop.startswith(f"{folder}/self (") and "symbolic links" in loop


def test_a_linked_file_or_folder_is_a_source_too(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/a.txt").write_text("text")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    (tmp_path / "b.txt").symlink_to(tmp_path / "folder/a.txt")
    assert read(tmp_path / "link")[0] == read(tmp_path / "b.txt")[0] == ["text"]
    assert read(tmp_path)[0] == ["text"]
    (tmp_path / "folder/a.txt").unlink()
    with pytest.raises(UsageError, match=r"b\.txt' is a link to .*a\.txt, which does not exist"):
        read(tmp_path / "b.txt")


def test_folders_that_match_a_pattern_are_read(tmp_path):
    for name in ("x/a.txt", "x/y/b.txt", "c.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert read(str(tmp_path / "*"))[0] == ["c.txt", "x/a.txt", "x/y/b.txt"]
    assert read(str(tmp_path / "**"))[0] == ["c.txt", "x/a.txt", "x/y/b.txt"]


@pytest.mark.skipif(os.geteuid() == 0 or sys.platform == "win32", reason="root may read all")
def test_folders_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    (tmp_path / "a.txt").write_text("text")
    found, stats = read(tmp_path)
    assert found == ["text"]
    assert stats.unreadable_files == [f"{tmp_path}/closed (Permission denied)"]


def test_a_folder_without_sources_says_what_it_has(tmp_path):
    (tmp_path / "a.md").write_text("text")
    (tmp_path / "b.json").write_text(json.dumps([{"text": "a"}]))
    with pytest.raises(
        UsageError, match=r"matches no file .*; ignored: 1 \.md, .*b\.json \(a JSON"
    ):
        read(tmp_path)


def test_many_unreadable_files_are_shown_in_part():
    [line] = ReadStats(unreadable_files=[f"{number}.txt" for number in range(25)]).lines()
    assert line.startswith("unreadable files: 0.txt, 1.txt") and line.endswith("and 15 more")
