"""Users' own tasks, as docs/finetune.md describes them: from gin alone, and in a Python file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from glm_jax.cli.main import main
from glm_jax.errors import UsageError
from glm_jax.tasks import Task, find_task

PAGE = Path(__file__).parents[2] / "docs/finetune.md"
MAX_PYTHON_LINES = 40
IMPORT = "from glm_jax.tasks import Task\n"
FLAGS = (
    *("--gin.task.sequence_length=64", "--gin.finetune.epochs=4", "--gin.finetune.batch_size=8"),
    *("--gin.optimizer.learning_rate=3e-3", "--gin.finetune.log_every=4"),
)


def block(start: str, kind: str = "") -> str:
    """The first example of the page that has this text."""
    blocks = re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return next(text for text in blocks if start in text)


def run(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


@pytest.mark.slow  # a task in a Python file runs the same steps
def test_a_task_in_german_from_gin_alone(tiny_task, tmp_path, capsys):
    rows = [json.loads(line) for line in block('{"satz"').splitlines()]
    data = tmp_path / "kritiken"
    data.mkdir()
    for split, times in (("train", 12), ("dev", 4)):
        (data / f"{split}.jsonl").write_text(
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows * times)
        )
    gin_file = tmp_path / "kritiken.gin"
    gin_file.write_text(block("task.name = 'custom'"), encoding="utf-8")
    paths = (f"--gin.task.data={data}", f"--gin.finetune.run_folder={tmp_path / 'run'}")
    weights = f"--gin.finetune.initial_weights={tiny_task / 'checkpoint'}"
    run("finetune", f"--gin_file={gin_file}", *paths, weights, *FLAGS)
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["accuracy"] > 50
    first = json.loads((tmp_path / "run/predictions.jsonl").read_text().splitlines()[0])
    assert first["label"] in ("positiv", "negativ")
    capsys.readouterr()
    run("evaluate", tmp_path / "run", "--task=custom", "--json")
    assert json.loads(capsys.readouterr().out)["accuracy"] == results["accuracy"]


@pytest.mark.parametrize(
    ("pattern", "words", "label"),
    [
        ("{评论}这是[MASK]。", {"好": "好", "差": "差"}, "标签"),
        ("{评论!}||[PROMPT]很[MASK]", {"1": "好", "0": "差"}, "label"),
    ],
)
def test_a_task_in_chinese_without_training(tiny_task, tmp_path, capsys, pattern, words, label):
    rows = [{"评论": "东西不错", label: name} for name in words]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "dev.jsonl").write_text(text, encoding="utf-8")
    settings = (f"patterns=({pattern!r},)", f"words={words!r}", f"label={label}")
    flags = [f"--gin.task.{setting}" for setting in (*settings, "multi_token=True")]
    checkpoint = tiny_task / "checkpoint"
    run("evaluate", checkpoint, "--task=custom", f"--data={tmp_path}", *flags, FLAGS[0])
    assert capsys.readouterr().out == "dev accuracy 50\n"


@pytest.fixture
def stars(tmp_path) -> Path:
    """The task of the page, and its data."""
    source = block("TASK = Task(", "python")
    assert len(source.splitlines()) <= MAX_PYTHON_LINES
    (tmp_path / "stars.py").write_text(source)
    data = tmp_path / "data"
    data.mkdir()
    for split, count in (("train", 24), ("dev", 9)):
        rows = [f"{'fine' if i % 3 == 0 else 'dull'} {i}\t{(5, 1, 3)[i % 3]}" for i in range(count)]
        (data / f"{split}.tsv").write_text("review\tstars\n" + "\n".join(rows) + "\n")
    return tmp_path / "stars.py"


def test_a_task_in_a_python_file(tiny_task, stars, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = f"--gin.finetune.initial_weights={tiny_task / 'checkpoint'}"
    flags = ("--gin.task.name=stars.py", "--gin.task.data=data", weights)
    flags += ("--gin.finetune.run_folder=run", "--gin.task.multi_token=True")
    run("finetune", "--gin_file=configs/finetune/optimizer.gin", *flags, *FLAGS)
    results = json.loads(Path("run/results.json").read_text())
    assert results["task"] == "stars" and 0 <= results["accuracy"] <= 100
    predictions = [
        json.loads(line) for line in Path("run/predictions.jsonl").read_text().splitlines()
    ]
    assert [item["idx"] for item in predictions] == [0, 1, 3, 4, 6, 7]  # without three stars
    assert {item["label"] for item in predictions} <= {"bad", "good"}
    capsys.readouterr()
    run("evaluate", "run", "--task=stars.py", "--json")
    assert json.loads(capsys.readouterr().out)["accuracy"] == results["accuracy"]


def test_one_of_several_tasks_is_chosen_by_name(tmp_path, monkeypatch):
    source = IMPORT + (
        "TASKS = tuple(Task(name=n, labels=('a', 'b'), examples=list) for n in ('one', 'two'))\n"
    )
    (tmp_path / "several_tasks_of_a_test.py").write_text(source)
    file = f"{tmp_path}/several_tasks_of_a_test.py"
    assert find_task(f"{file}:two").name == "two"
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_task("several_tasks_of_a_test:one").name == "one"
    for name in (file, f"{file}:three"):
        with pytest.raises(UsageError, match="has the tasks one, two; expected one of them"):
            find_task(name)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\n\n1 / 0\n", r"can't be imported: ZeroDivisionError: division by zero \(line 3\)"),
        ("def f(:\n", "can't be imported: SyntaxError"),
        ("TASK = 3\n", r"has no glm_jax\.tasks\.Task as TASK, nor several as TASKS"),
        ("import sys\nsys.exit(3)\n", "can't be imported: SystemExit: 3"),
        (
            f"{IMPORT}TASK = Task(name='t', labels=('a', 'a'), examples=list)",
            "task t has the label 'a' twice",
        ),
        (
            f"{IMPORT}TASK = Task(name='t', labels=('a', 'b'), examples=list,"
            "num_patterns=1, verbalizers=lambda pattern: {'a': ' x'})",
            "pattern 0 of task t has no verbalizer for the label 'b'",
        ),
    ],
)
def test_a_file_that_is_no_task_is_one_sentence(tmp_path, source, message):
    (tmp_path / "task.py").write_text(source)
    with pytest.raises(UsageError, match=message) as caught:
        find_task(f"{tmp_path}/task.py")
    assert "\n" not in str(caught.value)


def test_an_unknown_metric_is_one_sentence():
    from glm_jax.tasks import Example, metrics

    task = Task(name="t", labels=("a", "b"), examples=list, metrics=("f2",))
    with pytest.raises(UsageError, match="task t has the metric 'f2'; there are accuracy, acc, f1"):
        metrics(task, [0], [Example("0", "", label="a")])


def test_a_run_leaves_the_file_that_the_benchmark_takes(tiny_task, tmp_path):
    """GLUE's table, of the test split, whose rows have no labels."""
    for split in ("train", "dev"):
        rows = [f"{'fine' if i % 2 else 'dull'} {i}\t{i % 2}" for i in range(16)]
        (tmp_path / f"{split}.tsv").write_text("sentence\tlabel\n" + "\n".join(rows) + "\n")
    (tmp_path / "test.tsv").write_text("index\tsentence\n0\tfine 1\n1\tdull 2\n2\tfine 3\n")
    paths = (f"--gin.task.data={tmp_path}", f"--gin.finetune.run_folder={tmp_path / 'run'}")
    weights = f"--gin.finetune.initial_weights={tiny_task / 'checkpoint'}"
    flags = ("--gin.task.name=sst2", "--gin.task.multi_token=True", weights)
    run("finetune", "--gin_file=configs/finetune/optimizer.gin", *paths, *flags, *FLAGS)
    lines = (tmp_path / "run/predictions_test.jsonl").read_text().splitlines()
    labels = [json.loads(line)["label"] for line in lines]
    table = "".join(f"{number}\t{label}\n" for number, label in enumerate(labels))
    assert len(labels) == 3
    assert (tmp_path / "run/SST-2.tsv").read_text() == f"index\tprediction\n{table}"
    assert json.loads((tmp_path / "run/results.json").read_text())["test"] == {}
