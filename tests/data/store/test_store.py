"""Writing and reading token stores, whole and damaged."""

import json
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_jax.data.store import arrays
from glm_jax.data.store.store import open_store
from glm_jax.errors import RunError, UsageError
from glm_jax.tokenizer import load_tokenizer, train_sentencepiece
from tests.data.store.writing import write_store


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_sentencepiece(["some words"], tmp_path_factory.mktemp("t"), vocab_size=290)


def random_documents(number, longest, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 290, length) for length in generator.integers(1, longest, number)]


@pytest.fixture
def store(tokenizer, tmp_path):
    documents = {"train": random_documents(50, 1000), "validation": [[1, 2, 3]]}
    write_store(tmp_path / "store", documents, tokenizer)
    return tmp_path / "store", documents


def test_a_store_knows_what_is_in_it(store, tokenizer):
    path, documents = store
    opened = open_store(path)
    assert opened.path == str(path)
    assert opened.metadata.tokenizer_fingerprint == tokenizer.fingerprint
    assert opened.metadata.special == tokenizer.special
    assert opened.metadata.vocab_size == tokenizer.vocab_size
    assert opened.metadata.padded_vocab_size == tokenizer.padded_vocab_size
    assert opened.metadata.data_type == "uint16"
    assert load_tokenizer(path).fingerprint == tokenizer.fingerprint
    lengths = [len(document) for document in documents["train"]]
    train = opened.split("train")
    assert opened.metadata.splits["train"] == {
        "num_tokens": sum(lengths),
        "num_documents": len(lengths),
    }
    assert (train.num_tokens, train.num_documents) == (sum(lengths), len(lengths))
    assert train.document_starts().tolist() == [0, *np.cumsum(lengths[:-1]).tolist()]
    assert opened.split("validation").read(np.array([0]), 3).tolist() == [[1, 2, 3]]
    with pytest.raises(UsageError, match="no split 'test', only train, validation"):
        opened.split("test")


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 1000),
    number=st.integers(1, 30),
    shard=st.sampled_from([64, 256, 4096]),
    data=st.data(),
)
def test_windows_are_what_was_written(tokenizer, tmp_path_factory, seed, number, shard, data):
    documents = random_documents(number, 200, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "SHARD_ELEMENTS", shard)
        patch.setattr(arrays, "CHUNK_ELEMENTS", 32)
        path = tmp_path_factory.mktemp("random") / "store"
        train = write_store(path, {"train": documents}, tokenizer).split("train")
    stream = np.concatenate(documents)
    length = data.draw(st.integers(0, len(stream)))
    starts = np.array(data.draw(st.lists(st.integers(0, len(stream) - length))), np.int64)
    windows = train.read(starts, length)
    assert windows.dtype == np.int32
    assert windows.shape == (len(starts), length)
    expected = [stream[start : start + length] for start in starts]
    assert windows.tolist() == [window.tolist() for window in expected]
    assert train.document_starts().tolist() == [
        0,
        *np.cumsum([len(document) for document in documents[:-1]]).tolist(),
    ]


def test_large_vocabularies_take_four_bytes_an_id(tokenizer, tmp_path):
    class Large:
        padded_vocab_size = 1 << 17

        def __getattr__(self, name):
            return getattr(tokenizer, name)

    large: Any = Large()
    train = write_store(tmp_path / "store", {"train": [[100_000, 5]]}, large).split("train")
    assert train.read(np.array([0]), 2).tolist() == [[100_000, 5]]


def test_windows_outside_the_split_are_refused(store):
    train = open_store(store[0]).split("train")
    for start in (-1, train.num_tokens - 3):
        with pytest.raises(UsageError, match="reaches outside"):
            train.read(np.array([0, start]), 4)


def test_threads_may_read_at_once(store):
    path, documents = store
    stream = np.concatenate(documents["train"])
    train = open_store(path).split("train")
    wrong = []

    def read(seed):
        starts = np.random.default_rng(seed).integers(0, len(stream) - 64, 500)
        if not (train.read(starts, 64) == stream[starts[:, None] + np.arange(64)]).all():
            wrong.append(seed)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_what_is_no_store_is_said_in_a_sentence(tmp_path, tokenizer):
    with pytest.raises(UsageError, match=r"there is no token store at .*nowhere"):
        open_store(tmp_path / "nowhere")
    write_store(tmp_path / "unfinished", {"train": [[1, 2, 3]]}, tokenizer)
    (tmp_path / "unfinished" / "metadata.json").unlink()
    with pytest.raises(UsageError, match=r"unfinished is not a token store, or one that was not"):
        open_store(tmp_path / "unfinished")
    with pytest.raises(UsageError, match="nothing://here"):
        open_store("nothing://here")


def test_a_store_is_read_by_url_too(store):
    path, documents = store
    train = open_store(f"file://{path}/").split("train")
    assert train.read(np.array([0]), 1)[0, 0] == documents["train"][0][0]


def flip(content, at):
    content[at] ^= 1
    return content


DAMAGE = {
    "a flipped bit in the data": lambda content: flip(content, 100),
    "a flipped bit in the index": lambda content: flip(content, -20),
    "cut in half": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "removed": lambda content: None,
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("array", ["tokens", "document_starts"])
def test_damaged_data_is_an_error_that_names_the_file(store, array, damage):
    path, _ = store
    file = path / "train" / array / "c/0"
    damaged = DAMAGE[damage](bytearray(file.read_bytes()))
    file.unlink() if damaged is None else file.write_bytes(damaged)
    train = open_store(path).split("train")
    with pytest.raises(RunError, match=f"{path}/train/{array} is damaged: .*c/0"):
        train.document_starts()
        train.read(np.arange(0, train.num_tokens - 9, 9), 9)


@pytest.mark.parametrize("damage", ["cut in half", "empty", "removed"])
def test_damaged_array_descriptions_are_an_error(store, damage):
    path, _ = store
    file = path / "train/tokens/zarr.json"
    damaged = DAMAGE[damage](bytearray(file.read_bytes()))
    file.unlink() if damaged is None else file.write_bytes(damaged)
    with pytest.raises(RunError, match=f"{path}/train/tokens is missing or damaged"):
        open_store(path).split("train")


@pytest.mark.parametrize(
    "change, error, message",
    [
        (lambda metadata: metadata.pop("splits"), RunError, r"metadata\.json .* is damaged"),
        (lambda metadata: metadata.update(format_version=0), UsageError, "format 0"),
        (
            lambda metadata: metadata["splits"]["train"].update(num_tokens=7),
            RunError,
            "metadata says 7",
        ),
    ],
)
def test_metadata_that_does_not_fit_is_an_error(store, change, error, message):
    path, _ = store
    metadata = json.loads((path / "metadata.json").read_bytes())
    change(metadata)
    (path / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(error, match=message):
        open_store(path).split("train")
