"""The corpus that every installation has on disk."""

import inspect
import subprocess
import sys
from itertools import islice

import pytest

from glm_jax.data.sources.corpus import documents
from glm_jax.data.sources.embedded import docstring_documents, embedded_documents, prose


@pytest.fixture(scope="module")
def embedded():
    return list(documents(["embedded"]))


def test_it_is_large_enough_and_its_documents_are_whole(embedded):
    assert sum(document.num_bytes for document in embedded) >= 8_000_000
    assert len(embedded) > 1000
    assert all(document.text == document.text.strip() != "" for document in embedded)
    packages = {document.origin.split(":")[1].split("/")[0] for document in embedded}
    assert packages == {"pydoc_data", "python", "numpy", "scipy", "jax"}


def test_it_is_the_same_for_any_number_of_workers(embedded):
    assert list(islice(embedded_documents(workers=1), 120)) == embedded[:120]


def test_collecting_imports_none_of_the_packages():
    program = (
        "import sys, itertools\n"
        "from glm_jax.data.sources.embedded import embedded_documents\n"
        "list(itertools.islice(embedded_documents(workers=1), 100))\n"
        "print(sorted({'jax', 'scipy', 'tensorflow'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_docstrings_are_cleaned_ordered_and_never_repeated(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/a.py").write_text('"""A test."""')
    (tmp_path / "a.py").write_bytes(b'# no docstring, broken escape\nx = "\\d"\n')
    (tmp_path / "b.py").write_text(
        '"""The module."""\n'
        "class First:\n"
        '    """A class.\n\n    More:\n        Indented.\n    """\n'
        "    if True:\n"
        "        def method(self):\n"
        '            """A method."""\n'
        "            async def inner():\n"
        '                """ """\n'
        "def second():\n"
        '    """The module."""\n'
        "def third():\n"
        '    "Lone \\ud800."\n'
    )
    (tmp_path / "c.py").write_text("this is no Python")
    (tmp_path / "d.py").write_bytes(b'# -*- coding: latin-1 -*-\n"""Caf\xe9."""\n')
    (tmp_path / "e.py").write_text('"""The module."""')
    found = list(docstring_documents({"package": tmp_path}, workers=1))
    assert [(document.origin, document.text) for document in found] == [
        (
            "embedded:package/b.py",
            "The module.\n\nA class.\n\nMore:\n    Indented.\n\nA method.\n\nLone \ufffd.",
        ),
        ("embedded:package/d.py", "Café."),
    ]


def test_prose_joins_wrapped_lines_and_leaves_sessions_out():
    text = """
        A line that is long enough to have been wrapped by
        its author goes on here.

        Parameters
        ----------
        x : int
            What a line that is long enough to have been much
            wrapped is, indented.

        >>> f(x)
        4

        The end.
    """
    assert prose(inspect.cleandoc(text)) == (
        "A line that is long enough to have been wrapped by its author goes on here.\n\n"
        "Parameters\n----------\nx : int\n"
        "    What a line that is long enough to have been much wrapped is, indented.\n\nThe end."
    )
