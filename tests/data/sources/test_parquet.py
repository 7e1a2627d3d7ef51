"""Reading documents out of Parquet files."""

import sys

import pytest

from glm_jax.data.sources import pieces
from glm_jax.data.sources.corpus import documents
from glm_jax.data.sources.document import ReadStats
from glm_jax.errors import UsageError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def write(path, columns, rows_of_a_group=100):
    parquet.write_table(pyarrow.table(columns), path, row_group_size=rows_of_a_group)


def texts(*sources, **options):
    return [document.text for document in documents(sources, **options)]


def test_every_row_is_a_document(tmp_path):
    rows = [f"text {number}" for number in range(50)]
    write(tmp_path / "a.parquet", {"id": list(range(50)), "body": rows}, rows_of_a_group=7)
    found = list(documents([tmp_path], text_key="body"))
    assert [document.text for document in found] == rows
    assert found[8].origin == f"{tmp_path}/a.parquet:1:1"


@pytest.mark.parametrize("piece_bytes", [1, 50, 400, 1 << 20])
def test_documents_are_the_same_however_row_groups_are_joined_or_cut(
    tmp_path, monkeypatch, piece_bytes
):
    monkeypatch.setattr(pieces, "PIECE_BYTES", piece_bytes)
    rows = ["one", None, " ", *(f"text {number}" for number in range(30))]
    write(tmp_path / "a.parquet", {"text": rows}, rows_of_a_group=9)
    stats = ReadStats()
    assert texts(tmp_path, stats=stats) == ["one", *rows[3:]]
    assert stats == ReadStats(lines_without_text=1, empty_documents=1)


@pytest.mark.parametrize(
    "kind", ["string", "large_string", "string_view", "binary", "large_binary", "binary_view"]
)
def test_all_kinds_of_text_are_read(tmp_path, kind):
    column = pyarrow.array(["a", "é"]).cast(getattr(pyarrow, kind)())
    write(tmp_path / "a.Parquet", {"text": column})
    assert texts(tmp_path) == ["a", "é"]


@pytest.mark.parametrize("kind", ["string", "large_string", "binary"])
def test_columns_encoded_by_a_dictionary_are_read(tmp_path, kind, monkeypatch):
    column = pyarrow.array(["a", "b", None, "a"] * 5).cast(getattr(pyarrow, kind)())
    write(tmp_path / "a.parquet", {"text": column.dictionary_encode()}, rows_of_a_group=7)
    for piece_bytes in (pieces.PIECE_BYTES, 1):
        monkeypatch.setattr(pieces, "PIECE_BYTES", piece_bytes)
        stats = ReadStats()
        assert texts(tmp_path, stats=stats) == ["a", "b", "a"] * 5
        assert stats == ReadStats(lines_without_text=5)


def test_bytes_that_are_no_text_are_replaced_and_counted(tmp_path):
    write(tmp_path / "a.parquet", {"text": pyarrow.array([b"caf\xe9", b"ok"])})
    stats = ReadStats()
    assert texts(tmp_path, stats=stats) == ["caf\ufffd", "ok"]
    assert stats == ReadStats(documents_with_bad_utf8=1)


def test_without_the_column_the_others_are_named(tmp_path):
    write(tmp_path / "a.parquet", {"title": ["t"], "text": [1]})
    with pytest.raises(
        UsageError, match=r"a\.parquet has no column of text named 'text'.*title \(string\), text"
    ):
        texts(tmp_path)


def test_damaged_files_are_named_and_survived(tmp_path):
    write(tmp_path / "a.parquet", {"text": [f"text {number}" for number in range(1000)]})
    content = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(content[:-50])
    write(tmp_path / "b.parquet", {"text": ["good"]})
    stats = ReadStats()
    assert texts(tmp_path, stats=stats) == ["good"]
    [unreadable] = stats.unreadable_files
    assert unreadable.startswith(f"{tmp_path}/a.parquet (") and "\n" not in unreadable


def test_without_pyarrow_the_package_is_named(tmp_path, monkeypatch):
    write(tmp_path / "a.parquet", {"text": ["good"]})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"a\.parquet needs the Python package pyarrow"):
        texts(tmp_path)
