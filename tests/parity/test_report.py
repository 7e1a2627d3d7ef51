"""The report names every failure and ends accordingly."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.parity import report
from tests.parity.rows import Row

PAGE = Path(__file__).resolve().parents[2] / "docs" / "parity.md"
GOOD = Row("folder/good", "logits", 1e-4, 1e-5)
EQUAL = Row("folder/equal", "rows that differ, of 3", 0.0, 0)


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        (Row("folder/bad", "logits", 1e-4, 2e-4), "2.0e-04"),
        (Row("folder/bad", "logits", 1e-4, float("nan")), "nan"),
        (Row("folder/bad", "logits", 1e-4, float("inf")), "inf"),
        (Row("folder/bad", "rows that differ, of 3", 0.0, 1), "1"),
    ],
)
def test_a_failure_is_written_printed_and_ends_with_1(monkeypatch, tmp_path, capsys, row, shown):
    monkeypatch.setattr(report, "FOLDERS", {})
    monkeypatch.setattr(report, "PARTS", {"Part": lambda goldens: [GOOD, row]})
    out = tmp_path / "page.md"
    assert report.main([str(tmp_path), "--out", str(out)]) == 1
    page = out.read_text()
    assert "1 of 2 fail." in page
    assert f"| {shown} | **FAIL** |" in page
    assert "folder/bad" in capsys.readouterr().err


def test_without_a_failure_it_ends_with_0(monkeypatch, tmp_path):
    monkeypatch.setattr(report, "FOLDERS", {})
    monkeypatch.setattr(report, "PARTS", {"Part": lambda goldens: [GOOD, EQUAL]})
    out = tmp_path / "page.md"
    assert report.main([str(tmp_path), "--out", str(out)]) == 0
    page = out.read_text()
    assert "All 2 pass." in page and "FAIL" not in page
    assert "| `folder/good` | logits | 1.0e-04 | 1.0e-05 | pass |" in page
    assert "| `folder/equal` | rows that differ, of 3 | 0 | 0 | pass |" in page


def test_a_missing_folder_is_bad_usage(tmp_path):
    with pytest.raises(SystemExit) as ended:
        report.main([str(tmp_path / "none"), "--out", str(tmp_path / "page.md")])
    assert ended.value.code == 2


def test_merging_keeps_the_worst_of_a_golden():
    nan = Row("b", "hidden", 1e-4, float("nan"))
    rows = [Row("a", "hidden", 1e-4, 1e-6), Row("a", "logits", 1e-4, 1e-5), nan]
    first, second = report.merged([*rows, Row("b", "logits", 1e-4, 1e-5)])
    assert first == Row("a", "hidden, logits", 1e-4, 1e-5)
    assert second.quantity == "hidden, logits" and not second.passed


def test_the_page_in_the_repository_is_of_these_notes_and_passes():
    page = PAGE.read_text()
    assert page.startswith(report.HEADER) and page.endswith(report.NOTES.read_text())
    assert "FAIL" not in page and "pass |" in page
