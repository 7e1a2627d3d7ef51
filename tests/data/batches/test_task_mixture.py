"""Tasks in pretraining: the rows of right answers, what is drawn how often, and what is refused."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from glm_jax.data.batches.task_mixture import (
    TaskItems,
    TaskMixture,
    mixture_weights,
    open_tasks,
)
from glm_jax.errors import UsageError
from glm_jax.tasks import Example, find_task
from glm_jax.tasks.right_answer import encode_right_answer, fits_surely
from glm_jax.tokenizer import Tokenizer, load_tokenizer

WORDS = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("dogs", "bark", "cats", "run", "yes", "no", ",", ".", "?", '"', "or", "because", "so"),
)
PAD, ENC, MASK = 0, 2, 4
DOGS, BARK, CATS, RUN, YES, NO, COMMA, STOP, ASK, QUOTE, OR, BECAUSE, SO = range(5, 18)
SOP, EOP = 18, 19


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    """Words are tokens; eos and padding are one id."""
    folder = tmp_path_factory.mktemp("vocabulary")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    tokenizer = load_tokenizer("bert", folder)
    assert (tokenizer.special["sop"], tokenizer.special["eop"]) == (SOP, EOP)
    return tokenizer


def write(folder, *rows) -> str:
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def rte_row(
    premise="Cats run.", hypothesis="Dogs bark", label: str | None = "not_entailment", idx=0
):
    return {"premise": premise, "hypothesis": hypothesis, "label": label, "idx": idx}


def copa_row(label):
    return {
        **{"premise": "Cats run.", "choice1": "Dogs bark.", "choice2": "Dogs run."},
        **{"question": "cause", "label": label, "idx": 0},
    }


def test_a_word_is_predicted_at_the_start_of_part_b(tokenizer):
    example = Example("train-0", "Cats run.", "Dogs bark", "not_entailment")
    row = encode_right_answer(find_task("rte"), example, tokenizer, sequence_length=12, pattern=3)
    # Dogs bark? [MASK]. Cats run. -> No, at sop, which has the position of the mask.
    part_a = [ENC, DOGS, BARK, ASK, MASK, STOP, CATS, RUN, STOP, PAD]
    assert row["tokens"].tolist() == [*part_a, SOP, PAD]
    assert row["targets"].tolist() == [NO] * 12
    assert row["loss_mask"].tolist() == [0.0] * 10 + [1.0, 0.0]
    assert row["position_ids"].tolist() == [[*range(10), 4, 0], [0] * 10 + [1, 0]]
    assert row["prefix_length"] == 10


def test_of_scored_answers_the_right_one_is_predicted(tokenizer, tmp_path):
    """COPA has each row twice, its choices swapped in the second half."""
    folder = write(tmp_path / "copa", copa_row(label=1))
    mixture = open_tasks({"copa": folder}, {}, tokenizer, sequence_length=32, seed=0)
    choices = {"dogs bark": [DOGS, BARK], "dogs run": [DOGS, RUN]}
    part_a = {}
    for pattern, (start, joint, end) in enumerate([([QUOTE], [QUOTE, OR, QUOTE], [QUOTE, ASK]),
                                                   ([], [OR], [ASK])]):  # fmt: skip
        for order in (0, 1):
            first, second = list(choices.values())[:: 1 - 2 * order]
            context = [*start, *first, *joint, *second, *end, CATS, RUN, BECAUSE, MASK, STOP]
            part_a[2 * pattern + order] = [ENC, *context, PAD]
    batch = mixture.rows(np.arange(200))
    seen = Counter()
    for row in range(200):
        dataset, item = mixture.draw(row)
        assert dataset == 0
        seen[item] += 1
        expected = part_a[item]
        size = len(expected)
        assert batch["tokens"][row].tolist()[: size + 3] == [*expected, SOP, DOGS, RUN]
        assert batch["targets"][row, size : size + 3].tolist() == [DOGS, RUN, EOP]
        assert np.flatnonzero(batch["loss_mask"][row]).tolist() == [size, size + 1, size + 2]
        assert batch["position_ids"][row, 0, size] == expected.index(MASK)
        assert batch["prefix_length"][row] == size and batch["objective"][row] == 3
    assert set(seen) == {0, 1, 2, 3}  # two patterns of the ensemble, two examples


def test_words_of_several_tokens_are_predicted_with_all_of_them(tokenizer, tmp_path):
    rows = [{"id": "1", "question": "dogs", "comment": "cats", "label": "FAVOR", "language": "de"}]
    folder = write(tmp_path / "xstance", *rows)
    mixture = open_tasks({"xstance": folder}, {}, tokenizer, sequence_length=32, seed=1)
    batch = mixture.rows(np.arange(60))
    patterns = {mixture.draw(row)[1]: row for row in range(60)}
    # Yes and No are words of the vocabulary; Ja, Nein, Oui and Non are unknown, one token too.
    assert batch["loss_mask"][patterns[2]].sum() == 1
    task = find_task("xstance")
    example = Example("1", "dogs", "cats", "FAVOR")
    row = encode_right_answer(
        task, example, tokenizer, sequence_length=32, pattern=2, all_tokens=True
    )
    start = row["prefix_length"]
    assert row["targets"][start : start + 2].tolist() == [YES, EOP] and row["loss_mask"].sum() == 2


def test_weights_are_by_size_up_to_a_limit():
    assert mixture_weights([1, 32, 200_000, 500_000]).tolist() == pytest.approx(
        [1, 16, 200_000**0.8, 200_000**0.8]
    )


def fake(size: int) -> TaskItems:
    return TaskItems(find_task("rte"), [Example("", "", label="entailment")] * size, [False])


def test_tasks_are_drawn_by_weight_and_items_uniformly(tokenizer):
    sizes, draws = [10, 1_000, 300_000], 40_000
    mixture = TaskMixture([fake(size) for size in sizes], tokenizer, sequence_length=32, seed=5)
    drawn = [mixture.draw(index) for index in range(draws)]
    counts = Counter(dataset for dataset, _ in drawn)
    # 10^0.8 = 6.3096, 1000^0.8 = 251.19, 200000^0.8 = 17411.
    shares = np.asarray([6.3096, 251.19, 17411.0]) / (6.3096 + 251.19 + 17411.0)
    for dataset, share in enumerate(shares):
        deviation = np.sqrt(draws * share * (1 - share))
        assert abs(counts[dataset] - draws * share) < 4 * deviation
    items = np.asarray([item for dataset, item in drawn if dataset == 2])
    assert items.min() >= 0 and items.max() < 300_000
    observed = np.bincount(items // 30_000, minlength=10)
    assert np.sum((observed - len(items) / 10) ** 2) / (len(items) / 10) < 27.9  # 0.1% of 9 degrees


def test_given_weights_replace_those_by_size(tokenizer):
    mixture = TaskMixture(
        [fake(5), fake(5)], tokenizer, sequence_length=32, seed=5, weights=[1.0, 3.0]
    )
    counts = Counter(mixture.draw(index)[0] for index in range(4_000))
    assert abs(counts[1] - 3_000) < 4 * np.sqrt(4_000 * 0.75 * 0.25)


def test_a_row_depends_on_seed_and_index_alone(tokenizer, tmp_path):
    rows = [rte_row(hypothesis=" ".join(["dogs"] * n), idx=n) for n in range(1, 9)]
    folder = write(tmp_path / "rte", *rows)

    def read(index, seed=3):
        mixture = open_tasks({"rte": folder}, {}, tokenizer, sequence_length=40, seed=seed)
        return mixture.rows(np.asarray(index))

    together = read(range(20))
    for name, values in read([17, 2, 11]).items():
        np.testing.assert_array_equal(values, together[name][[17, 2, 11]])
    assert (read(range(20), seed=-4)["tokens"] != together["tokens"]).any()
    assert read([2**62])["tokens"].shape == (1, 40) and read([])["tokens"].shape == (0, 40)


def test_what_fits_surely_does_fit(tokenizer):
    task = find_task("boolq")
    example = Example("train-0", "x" * 500, "ä" * 500, "true")
    fitting = [length for length in range(8, 80) if fits_surely(task, example, 0, length)]
    for length in fitting:
        encode_right_answer(task, example, tokenizer, sequence_length=length)
    assert fitting


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        ("rte", rte_row(label=None), "example train-0 of task rte has no label"),
        ("rte", rte_row(label="so"), "example train-0 of rte has the label 'so'"),
        ("rte", {"premise": "a"}, "line 1: no field 'hypothesis'"),
        ("copa", {**copa_row(0), "choice1": "dogs " * 30}, "need a sequence length of 7"),
        ("wsc1", rte_row(), "task wsc1 has no patterns"),
        ("multichoice", rte_row(), "task multichoice has no split 'train'"),
        ("mnli", rte_row(), "train.tsv is missing, which task mnli needs"),
        ("ret", rte_row(), "there is no task 'ret'; did you mean rte?"),
    ],
)
def test_what_cannot_be_learnt_is_refused_at_the_start(tokenizer, tmp_path, task, row, message):
    folder = write(tmp_path / "data", row)
    with pytest.raises(UsageError) as caught:
        open_tasks({task: folder}, {}, tokenizer, sequence_length=32, seed=0)
    assert message in str(caught.value) and "\n" not in str(caught.value)
