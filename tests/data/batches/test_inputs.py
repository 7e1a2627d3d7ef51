"""Stores and streams that a run reads, from its configuration."""

import json
import shutil

import numpy as np
import pytest

from glm_jax.cli.main import main
from glm_jax.configure import read_configuration
from glm_jax.data.batches.inputs import Inputs, open_inputs
from glm_jax.data.blanks.config import Objective
from glm_jax.errors import UsageError
from glm_jax.train.run_folder import gin_text


@pytest.fixture(scope="session")
def two_stores(tiny_store, tmp_path_factory):
    """The tiny store and a copy of it, as gin takes them."""
    copy = tmp_path_factory.mktemp("stores") / "copy"
    shutil.copytree(tiny_store, copy)
    return {str(tiny_store): 0.7, str(copy): 0.3}


def open_with(gin_file, *bindings) -> Inputs:
    config = read_configuration([gin_file], bindings)
    return open_inputs(config.data, config.blanks, config.model.vocab_size)


def test_stores_are_mixed_and_counted(tiny_run, two_stores, tmp_path):
    bindings = ["data.store=", f"data.stores={two_stores}"]
    inputs = open_with(tiny_run, *bindings)
    assert inputs.num_tokens("train") == 2 * open_with(tiny_run).num_tokens("train")
    batch = inputs.read_rows("validation", 3, range(8))
    assert batch["tokens"].shape == (8, 32)
    config = read_configuration([tiny_run], bindings)
    again = tmp_path / "again.gin"
    again.write_text(gin_text(config))
    assert read_configuration([again]) == config
    assert config.data.main_store == next(iter(two_stores))


def test_each_store_has_an_order_of_its_own(tiny_run, two_stores):
    """The two stores hold the same text, but a batch does not have it twice."""
    inputs = open_with(tiny_run, "data.store=", f"data.stores={two_stores}", "data.batch_size=64")
    tokens = inputs.read_rows("train", 0, range(64))["tokens"]
    assert len(np.unique(tokens, axis=0)) == 64


@pytest.mark.parametrize("order", ["epochs", "documents"])
def test_orders_differ(tiny_run, order):
    inputs = open_with(tiny_run, f"data.order={order}")
    one, same = (inputs.read_rows("train", 2, range(8)) for _ in range(2))
    np.testing.assert_array_equal(one["tokens"], same["tokens"])
    other = {"epochs": "documents", "documents": "epochs"}[order]
    different = open_with(tiny_run, f"data.order={other}").read_rows("train", 2, range(8))
    assert (one["tokens"] != different["tokens"]).any(axis=1).all()


def test_held_out_texts_have_the_proportions_of_evaluation(tiny_run):
    inputs = open_with(tiny_run)
    config = read_configuration([tiny_run], ["evaluation.proportions={'document': 2.0}"])
    ours = open_inputs(config.data, config.blanks, 512, config.evaluation_blanks)
    rows = range(8)
    training = [opened.read_rows("train", 0, rows) for opened in (inputs, ours)]
    for name, values in training[0].items():
        np.testing.assert_array_equal(training[1][name], values)
    assert set(ours.read_rows("validation", 0, rows)["objective"]) == {Objective.DOCUMENT}
    # So a run on another mixture is evaluated on the same examples.
    mixture = ["blanks.token=0", "blanks.sentence=0", "blanks.document=1"]
    same = "evaluation.proportions={'token': 0.5, 'sentence': 0.3, 'document': 0.2}"
    config = read_configuration([tiny_run], [*mixture, same])
    other = open_inputs(config.data, config.blanks, 512, config.evaluation_blanks)
    expected = inputs.read_rows("validation", 1, rows)
    for name, values in other.read_rows("validation", 1, rows).items():
        np.testing.assert_array_equal(values, expected[name])


def test_supervised_examples_are_mixed_into_training_only(tiny_run, tmp_path):
    lines = [{"context": f"Number {i} is [MASK] .", "answer": "small"} for i in range(20)]
    path = tmp_path / "tasks.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    inputs = open_with(tiny_run, f"data.supervised={path}", "data.supervised_share=0.25")
    training = inputs.read_rows("train", 0, range(8))["objective"]
    held_out = inputs.read_rows("validation", 0, range(8))["objective"]
    assert np.sum(training == Objective.OTHER) == 2
    assert not np.any(held_out == Objective.OTHER)


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (["data.stores={'a': 1.0}"], "expected exactly one of them"),
        (["data.store="], "expected exactly one of them"),
        (["data.store=", "data.stores={'a': 0.0}"], "gives a weight 0.0; expected above 0"),
        (["data.store=", "data.stores={'a': 'b'}"], "data.stores['a'] is 'b', of type str"),
        (["data.store=", "data.stores=a"], "expected type dict"),
        (["data.order=random"], "'random'; expected one of epochs, documents"),
        (["data.supervised=a.jsonl"], "examples and a share above 0, or neither"),
        (["data.supervised_share=0.5"], "examples and a share above 0, or neither"),
        (["data.tasks={'rte': 'a'}"], "examples and a share above 0, or neither"),
        (
            ["data.tasks={'rte': 'a'}", "data.supervised=a.jsonl", "data.supervised_share=0.5"],
            "data.tasks is {'rte': 'a'}; expected one of them",
        ),
        (
            [
                "data.tasks={'rte': 'a'}",
                "data.supervised_share=0.5",
                "data.task_weights={'cb': 1.0}",
            ],
            "expected a weight for each of the tasks rte, or no weights",
        ),
        (
            ["data.tasks={'a': 'a'}", "data.supervised_share=0.5", "data.task_weights={'a': 0.0}"],
            "data.task_weights gives a weight 0.0; expected above 0",
        ),
        (["data.supervised_share=1.0"], "expected a number in [0, 1)"),
    ],
)
def test_a_wrong_setting_is_one_sentence(tiny_run, bindings, message):
    with pytest.raises(UsageError) as caught:
        read_configuration([tiny_run], bindings)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_stores_of_different_tokenizers_are_not_mixed(tiny_run, tiny_store, tmp_path):
    from glm_jax.tokenizer import train_sentencepiece
    from tests.data.store.writing import write_store

    tokenizer = train_sentencepiece(["some other text " * 50], tmp_path / "t", vocab_size=300)
    ids = [tokenizer.special["ENC"], *tokenizer.encode_text("other text " * 50)]
    write_store(tmp_path / "other", {"train": [ids], "validation": [ids]}, tokenizer)
    stores = {str(tiny_store): 1.0, str(tmp_path / "other"): 1.0}
    with pytest.raises(UsageError, match="stores that are mixed need the same"):
        open_with(tiny_run, "data.store=", f"data.stores={stores}")


def test_a_split_that_is_too_short_is_named(tiny_run, tiny_store, tmp_path):
    from glm_jax.tokenizer import load_tokenizer
    from tests.data.store.writing import write_store

    tokenizer = load_tokenizer(str(tiny_store / "tokenizer"))
    special = tokenizer.special
    document = [special["ENC"], 5, special["eos"]]
    write_store(tmp_path / "short", {"train": [document], "validation": [document]}, tokenizer)
    inputs = open_with(tiny_run, f"data.store={tmp_path / 'short'}")
    with pytest.raises(
        UsageError, match=r"split train of the store .*short: the split has 3 token"
    ):
        inputs.read_rows("train", 0, range(8))


def test_tasks_are_mixed_into_training_and_resume(tiny_run, tmp_path):
    """Each batch is the same wherever reading starts, and has its share of the tasks' rows."""
    rows = [{"passage": f"{i}", "question": "b", "label": i % 2 == 0, "idx": i} for i in range(9)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = [f"data.tasks={{'boolq': '{tmp_path}'}}", "data.supervised_share=0.25"]
    settings += ["data.sequence_length=200", "model.max_sequence_length=200"]
    inputs = open_with(tiny_run, *settings)
    batches = [inputs.read_rows("train", step, range(8)) for step in range(4)]
    for batch in batches:
        assert (batch["objective"] == int(Objective.OTHER)).sum() == 2
    again = open_with(tiny_run, *settings).read_rows("train", 3, range(8))
    for name, values in again.items():
        np.testing.assert_array_equal(values, batches[3][name])
    held_out = inputs.read_rows("validation", 0, range(8))
    assert not (held_out["objective"] == int(Objective.OTHER)).any()


@pytest.mark.parametrize(
    ("tasks", "sentence"),
    [
        ("{'boolq': 'nowhere'}", "train.jsonl is missing, which task boolq needs"),
        ("{'bool': 'nowhere'}", "there is no task 'bool'; did you mean boolq?"),
        ("{'cb': 'tfds:super_glue/cb'}", "TFDS data set 'super_glue/cb' is not prepared in"),
    ],
)
def test_tasks_that_cannot_be_read_stop_a_run_before_it_starts(
    tiny_run, tmp_path, capsys, monkeypatch, tasks, sentence
):
    constants = pytest.importorskip("tensorflow_datasets").core.constants
    monkeypatch.setattr(constants, "DATA_DIR", str(tmp_path))
    flags = [f"--gin.data.tasks={tasks}", "--gin.data.supervised_share=0.5"]
    folder = tmp_path / "run"
    flags.append(f"--gin.train.run_folder={folder}")
    assert main(["pretrain", f"--gin_file={tiny_run}", *flags]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1, error
    assert not folder.exists()
