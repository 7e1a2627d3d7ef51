"""A conversion that doesn't fit on the disk is refused before it starts."""

from types import SimpleNamespace

import pytest

from glm_jax.convert.checks import check_space
from glm_jax.errors import RunError


@pytest.mark.parametrize(
    ("free", "sentence"),
    [
        (0, "needs 5.12 kB, but only 0 bytes are free there"),
        (2_000, "needs 5.12 kB, but only 2.00 kB are free there"),
        (5_119, "needs 5,120 bytes, but only 5,119 bytes are free there"),
    ],
)
def test_the_numbers_of_the_sentence_differ(tmp_path, monkeypatch, free, sentence):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(RunError, match=f"{sentence}$"):
        check_space(tmp_path / "out", 5_120)
