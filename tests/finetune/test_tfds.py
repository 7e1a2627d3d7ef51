"""Data sets that TFDS prepared give the examples of the official files that they were made from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from glm_jax.cli.main import main
from glm_jax.errors import UsageError
from glm_jax.tasks import find_task, has_split, read_examples
from glm_jax.tasks.custom import custom_task
from glm_jax.tasks.text import standardize
from tests.tasks import recorded

tfds = pytest.importorskip("tensorflow_datasets")

# Task; TFDS's name; folder of its files as TFDS downloads them; ours with the recorded files.
SAME_FILES = [
    ("copa", "super_glue/copa", "COPA"),
    ("rte", "super_glue/rte", "RTE"),
    ("cb", "super_glue/cb", "CB"),
    ("boolq", "super_glue/boolq", "BoolQ"),
    ("wic", "super_glue/wic", "WiC"),
    ("wsc", "super_glue/wsc", "WSC"),
    ("multirc", "super_glue/multirc", "MultiRC"),
    ("record", "super_glue/record", "ReCoRD"),
    ("ax-b", "super_glue/axb", "AX-b"),
    ("sst2", "glue/sst2", "SST-2"),
    ("cola", "glue/cola", "CoLA"),
    ("qnli", "glue/qnli", "QNLI"),
    ("qqp", "glue/qqp", "QQP"),
    ("squad", "squad/v2.0", "SQuAD"),
    ("mnli", "glue/mnli", "MNLI"),
    ("mnli-mm", "glue/mnli", "MNLI"),
    ("agnews", "ag_news_subset", "ag_news_csv"),
    ("yelp-polarity", "yelp_polarity_reviews", "yelp_review_polarity_csv"),
    ("race", "race/middle", "RACE"),
]


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    """Lets TFDS's own builder prepare a data set from a folder, as if that were downloaded."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "tfds"))

    def prepare(name: str, downloaded: Path) -> str:
        def downloads(self, urls):
            from etils import epath

            folder = epath.Path(downloaded)
            if not isinstance(urls, dict):
                return folder
            files = {
                name: next(folder.glob(f"*/{Path(url).name}"), folder) for name, url in urls.items()
            }
            return {name: str(file) for name, file in files.items()}

        monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", downloads)
        builder = tfds.builder(name, data_dir=str(tmp_path / "tfds"), try_gcs=False)
        builder.download_and_prepare()
        return f"tfds:{name}"

    return prepare


def official(tmp_path: Path, folder: str) -> Path:
    """The recorded files of a task, in a folder as TFDS expects it; its parent is returned."""
    source = {"ag_news_csv": "Agnews"}.get(folder, folder)
    target = tmp_path / "downloaded" / folder
    shutil.copytree(recorded.FOLDER / "raw" / source, target)
    for file in target.glob("*.jsonl"):
        rows = [in_order(json.loads(line)) for line in file.open() if line.strip()]
        file.write_text("".join(json.dumps(row) + "\n" for row in in_order(rows)))
    return target.parent


def in_order(value):
    """By their indices, as the published files are; answers as TFDS stores them, by their text."""
    if isinstance(value, list):
        value = [in_order(item) for item in value]
        if value and isinstance(value[0], dict) and "idx" in value[0]:
            return sorted(value, key=lambda item: int(item["idx"]))
        if value and isinstance(value[0], dict) and set(value[0]) >= {"text", "start"}:
            return sorted(value, key=lambda item: item["text"])
        return value
    return {k: in_order(v) for k, v in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize(("task", "name", "folder"), SAME_FILES, ids=[t for t, _, _ in SAME_FILES])
def test_examples_are_those_of_the_official_files(shared, prepare, tmp_path, task, name, folder):
    downloaded = official(tmp_path, folder)
    source = prepare(name, downloaded)
    compared = 0
    for split in ("train", "dev", "test"):
        if not has_split(find_task(task), str(downloaded / folder), split):
            assert not has_split(find_task(task), source, split)
            continue
        expected = read_examples(task, str(downloaded / folder), split)
        if task == "race":  # TFDS has its two halves as two data sets
            expected = [example for example in expected if "middle" in str(example.guid)]
        found = read_examples(task, source, split)
        if name in ("ag_news_subset", "yelp_polarity_reviews", "squad/v2.0"):  # without indices
            expected, found = (
                sorted(e, key=lambda x: (x.text_a, x.text_b)) for e in (expected, found)
            )
            assert [(e.text_a, e.text_b, e.label) for e in found] == [
                (e.text_a, e.text_b, e.label) for e in expected
            ]
        else:
            assert found == expected
        compared += len(expected)
    assert compared > 2


def test_a_custom_task_takes_the_names_of_features_and_classes(shared, prepare, tmp_path):
    source = prepare("ag_news_subset", official(tmp_path, "ag_news_csv"))
    words = {"World": "a", "Sports": "b", "Business": "c", "Sci/Tech": "d"}
    task = custom_task(("{title} {description} [MASK]",), words)
    found = read_examples(task, source, "train")
    assert {example.label for example in found} <= set(words)
    expected = read_examples("agnews", str(tmp_path / "downloaded/ag_news_csv"), "train")
    assert sorted(standardize(e.text_a.replace("\\", " ")) for e in found) == sorted(
        e.text_a for e in expected
    )
    with pytest.raises(UsageError, match="has no split for 'dev' of task custom"):
        read_examples(task, source, "dev")


def test_a_command_takes_a_data_set(shared, prepare, tmp_path, tiny_task, capsys):
    source = prepare("super_glue/boolq", official(tmp_path, "BoolQ"))
    arguments = ["evaluate", str(tiny_task / "checkpoint"), "--task=boolq", "--json"]
    arguments += ["--gin.task.sequence_length=64", "--gin.task.multi_token=True"]
    found = []
    for data in (source, str(tmp_path / "downloaded/BoolQ")):
        assert main([*arguments, f"--data={data}"]) == 0
        found.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    assert found[0] == found[1]
    assert main([*arguments, "--data=tfds:super_glue/rte"]) == 2
    error = capsys.readouterr().err
    assert "is not prepared in" in error and "glm-jax: TFDS data set 'super_glue/rte'" in error


def test_what_is_not_prepared_is_not_downloaded(monkeypatch, tmp_path):
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))
    with pytest.raises(UsageError, match=r"run `tfds build super_glue/copa` once"):
        read_examples("copa", "tfds:super_glue/copa", "dev")
    with pytest.raises(UsageError, match="TFDS has no data set 'super_glu/copa'"):
        read_examples("copa", "tfds:super_glu/copa", "dev")


def test_data_of_another_task_and_missing_splits_are_one_sentence(shared, prepare, tmp_path):
    source = prepare("super_glue/axb", official(tmp_path, "AX-b"))
    with pytest.raises(UsageError, match=r"split test, example \d: no field 'premise'; found"):
        read_examples("ax-g", source, "test")
    with pytest.raises(UsageError, match="no split for 'train' of task cb; splits found: test"):
        read_examples("cb", source, "train")
