"""Reading documents out of every kind of source, good and bad."""

import bz2
import gzip
import json
import lzma
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_jax.data.sources import pieces
from glm_jax.data.sources.corpus import documents
from glm_jax.data.sources.document import ReadStats, split_text
from glm_jax.errors import UsageError


def texts(*sources, **options):
    return [document.text for document in documents(sources, **options)]


def write_jsonl(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_folders_files_and_globs_in_sorted_order_and_each_file_once(tmp_path):
    (tmp_path / "deep/deeper").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    for name in ("b.txt", "deep/a.txt", "deep/deeper/c.txt", ".hidden/d.txt", ".e.txt", "notes.md"):
        (tmp_path / name).write_text(f"text of {name}")
    write_jsonl(tmp_path / "deep/lines.jsonl", {"text": "one"}, {"text": "two"})
    in_folder = ["text of b.txt", "text of deep/a.txt", "text of deep/deeper/c.txt", "one", "two"]

    assert texts(tmp_path) == in_folder
    assert texts(tmp_path / "deep/*.txt", tmp_path) == [in_folder[1], in_folder[0], *in_folder[2:]]
    assert texts(str(tmp_path / "**/c.txt")) == ["text of deep/deeper/c.txt"]
    assert [document.origin for document in documents([tmp_path / "deep/lines.jsonl"])] == [
        f"{tmp_path}/deep/lines.jsonl:0",
        f"{tmp_path}/deep/lines.jsonl:16",
    ]


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_compressed_files_read_like_plain_ones(tmp_path, suffix):
    compress = compressor(suffix)
    (tmp_path / f"a.txt{suffix}").write_bytes(compress(b"compressed\r\ntext\n"))
    (tmp_path / f"b.jsonl{suffix}").write_bytes(compress(b'{"body": "a line"}\n'))
    assert texts(tmp_path, text_key="body") == ["compressed\ntext", "a line"]


def compressor(suffix):
    if suffix == ".zst":
        return pytest.importorskip("zstandard").ZstdCompressor().compress
    return {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[suffix]


def test_zst_without_its_package_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    (tmp_path / "a.txt.zst").write_bytes(b"any")
    with pytest.raises(UsageError, match=r"a\.txt\.zst needs the Python package zstandard"):
        documents([tmp_path])


LINES = st.lists(st.text(alphabet="aé \n", min_size=1, max_size=30), max_size=20)


@settings(deadline=None, max_examples=60)
@given(lines=LINES, piece_bytes=st.integers(1, 200), suffix=st.sampled_from(["", ".gz"]))
def test_documents_are_the_same_however_files_are_cut(tmp_path_factory, lines, piece_bytes, suffix):
    folder = tmp_path_factory.mktemp("cut")
    content = "".join(json.dumps({"text": line}, ensure_ascii=False) + "\n" for line in lines)
    encoded = content.removesuffix("\n").encode()
    name = folder / f"a.jsonl{suffix}"
    name.write_bytes(gzip.compress(encoded) if suffix else encoded)
    (folder / "b.txt").write_text("\n\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE_BYTES", piece_bytes)
        found, stats = texts(folder, maximum_characters=50), ReadStats()
        origins = [doc.origin for doc in documents([folder], stats=stats)]
    assert found == texts(folder, maximum_characters=50)
    whole = ReadStats()
    assert origins == [doc.origin for doc in documents([folder], stats=whole)]
    assert stats == whole


def test_bad_utf8_is_replaced_and_counted(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9 \xff\xfe ol\xc3\xa9")
    (tmp_path / "b.txt").write_bytes("\ufeffgood: \ufffd 😀".encode())
    (tmp_path / "c.jsonl").write_bytes(b'{"text": "b\xe4d"}\n{"text": "lone \\ud800"}\n')
    stats = ReadStats()
    assert texts(tmp_path, stats=stats) == [
        "caf\ufffd \ufffd\ufffd olé",
        "good: \ufffd 😀",
        "b\ufffdd",
        "lone \ufffd",
    ]
    assert stats == ReadStats(documents_with_bad_utf8=3)


def test_empty_documents_and_bad_lines_are_skipped_and_counted(tmp_path):
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "b.txt").write_text(" \n\t\n")
    lines = [
        '{"text": "good"}',
        "not json",
        "",
        "[1]",
        '{"text": " "}',
        '{"text": null}',
        '{"n":1}',
    ]
    (tmp_path / "c.jsonl").write_text("\n".join(lines))
    (tmp_path / "d.jsonl").write_text("[" * 100_000)
    (tmp_path / "e.jsonl").write_text('{"text": "also good"}')
    stats = ReadStats()
    with pytest.raises(UsageError, match=r"d\.jsonl.*keys found: none"):
        texts(tmp_path, stats=stats)
    (tmp_path / "d.jsonl").unlink()
    stats = ReadStats()
    assert texts(tmp_path, stats=stats) == ["good", "also good"]
    assert stats == ReadStats(empty_documents=3, bad_json_lines=2, lines_without_text=2)


def test_jsonl_without_the_key_is_an_error_that_names_the_keys(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", {"title": "t", "content": "c"}, {"url": "u"})
    with pytest.raises(UsageError, match=r"a\.jsonl has the key 'text'.*title, content, url"):
        texts(tmp_path)


def test_damaged_gzip_keeps_what_could_be_read_and_is_named(tmp_path):
    whole = gzip.compress("".join(f'{{"text": "line {n}"}}\n' for n in range(9999)).encode())
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b.txt.gz").write_bytes(b"no gzip at all")
    (tmp_path / "c.txt").write_text("good")
    stats = ReadStats()
    found = texts(tmp_path, stats=stats)
    assert found[0] == "line 0"
    assert found[-1] == "good"
    first, second = stats.unreadable_files
    assert first.startswith(f"{tmp_path}/a.jsonl.gz (Compressed file ended")
    assert second.startswith(f"{tmp_path}/b.txt.gz (Not a gzipped file")


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_large_damaged_files_keep_what_could_be_read(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(pieces, "PIECE_BYTES", 1000)
    numbers = np.random.default_rng(0).integers(0, 1 << 60, 40_000).tolist()
    lines = "".join(f'{{"text": "{number}"}}\n' for number in numbers)
    whole = compressor(suffix)(lines.encode())
    (tmp_path / f"a.jsonl{suffix}").write_bytes(whole[: len(whole) * 3 // 4])
    stats = ReadStats()
    found = texts(tmp_path, stats=stats)
    assert 0 < len(found) < len(numbers)
    assert found == list(map(str, numbers[: len(found)]))
    assert len(stats.unreadable_files) == 1 and stats.bad_json_lines == 0


@settings(deadline=None, max_examples=200)
@given(
    blocks=st.lists(st.text(alphabet="ab \n", max_size=60), max_size=8),
    maximum=st.integers(min_value=1, max_value=40),
)
def test_split_parts_are_short_enough_and_join_to_the_text(blocks, maximum):
    parts = list(split_text(blocks, maximum))
    assert "".join(parts) == "".join(blocks)
    assert all(0 < len(part) <= maximum for part in parts)


def test_splits_fall_between_paragraphs_else_lines_else_words():
    assert list(split_text(["aaaa\n\nbb b\nb"], 10)) == ["aaaa\n\n", "bb b\nb"]
    assert list(split_text(["aaaaa\nbb bb"], 9)) == ["aaaaa\n", "bb bb"]
    assert list(split_text(["aaaaa bbbb"], 9)) == ["aaaaa ", "bbbb"]
    assert list(split_text(["a" * 10], 9)) == ["a" * 9, "a"]


def test_gigantic_documents_are_split_and_keep_one_digest(tmp_path):
    paragraphs = [f"Paragraph {number} has some words." for number in range(1000)]
    (tmp_path / "a.txt").write_text("\n\n".join(paragraphs))
    write_jsonl(tmp_path / "b.jsonl", {"text": "short"}, {"text": "\n\n".join(paragraphs)})
    stats = ReadStats()
    found = list(documents([tmp_path], stats=stats, maximum_characters=1000))
    assert all(len(document.text) <= 1000 for document in found)
    of_file = [document for document in found if document.origin.endswith("a.txt")]
    assert "\n\n".join(document.text for document in of_file).split("\n\n") == paragraphs
    assert len({document.digest for document in of_file}) == 1
    assert len({document.digest for document in found}) == 2  # the same text in both files
    assert stats == ReadStats(split_documents=2)


@pytest.mark.parametrize("source", ["nowhere", "nowhere/*.txt", "notes.md", "."])
def test_a_source_that_matches_nothing_is_named_at_once(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.md").write_text("text")
    with pytest.raises(UsageError, match=f"'{source}'".replace("*", r"\*")):
        documents([source])


def test_an_impossible_maximum_is_refused(tmp_path):
    with pytest.raises(UsageError, match="maximum_characters is 0"):
        documents([tmp_path], maximum_characters=0)


def test_no_sources_at_all_is_an_error():
    with pytest.raises(UsageError, match="no sources"):
        documents([])


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory):
    tfds = pytest.importorskip("tensorflow_datasets")
    folder = tmp_path_factory.mktemp("tfds")

    def store(name, features, **splits):
        tfds.dataset_builders.store_as_tfds_dataset(
            name,
            version="1.0.0",
            features=tfds.features.FeaturesDict(features),
            split_datasets={split: enumerate(examples) for split, examples in splits.items()},
            data_dir=folder,
            disable_shuffling=True,
        )

    text, number = tfds.features.Text(), tfds.features.Scalar(np.int64)
    store(
        "one_text",
        {"content": text, "label": number},
        train=[{"content": f"text {n}", "label": n} for n in range(5)]
        + [{"content": "", "label": 0}],
        test=[{"content": "for tests", "label": 1}],
    )
    store("two_texts", {"text": text, "title": text}, train=[{"text": "body", "title": "head"}])
    tfds.core.add_data_dir(folder)
    return folder


def test_tfds_data_sets_are_read_by_split_and_feature(tfds_folder):
    stats = ReadStats()
    expected = [f"text {n}" for n in range(5)]
    assert texts("tfds:one_text", stats=stats) == expected
    assert stats == ReadStats(empty_documents=1)
    assert texts("tfds:one_text#test") == ["for tests"]
    assert texts("tfds:one_text#train[:2]+test") == [*expected[:2], "for tests"]
    assert texts("tfds:two_texts") == ["body"]
    assert texts("tfds:two_texts", text_key="title") == ["head"]


@pytest.mark.parametrize(
    "source, message",
    [
        ("tfds:no_such_data_set", "no data set 'no_such_data_set'"),
        ("tfds:imdb_reviews", "not prepared"),
        ("tfds:one_text#validation", "no split 'validation'; splits found: test, train"),
        ("tfds:two_texts", "no text feature 'body'; text features found: text, title"),
    ],
)
def test_tfds_troubles_are_one_sentence(tfds_folder, source, message):
    with pytest.raises(UsageError, match=message) as caught:
        documents([source], text_key="body")
    assert "\n" not in str(caught.value)


def test_urls_are_read_like_paths(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ("b.txt", "deep/a.txt", ".hidden/c.txt"):
        (tmp_path / name).write_text(f"text of {name}")
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a line"}\n'))
    in_folder = ["text of b.txt", "a line", "text of deep/a.txt"]
    assert texts(f"file://{tmp_path}") == in_folder
    assert texts(f"file://{tmp_path}/*.txt") == in_folder[:1]
    [document] = documents([f"file://{tmp_path}/b.txt"])
    assert document.origin == f"file://{tmp_path}/b.txt"


@pytest.mark.parametrize(
    "url, message",
    [
        ("file:///no/such/folder", "matches no file"),
        ("nothing://bucket/a.txt", "nothing://bucket/a.txt cannot be read: nothing://"),
        ("gs://bucket/a.txt", "needs a Python package that is not installed"),
    ],
)
def test_urls_that_cannot_be_read_are_one_sentence(monkeypatch, url, message):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UsageError, match=message) as caught:
        documents([url])
    assert "\n" not in str(caught.value)
