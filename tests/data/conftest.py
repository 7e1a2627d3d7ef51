"""A vocabulary and a token stream for the tests of the data path.

The ids are those of the recorded numbers, so that texts of both can be mixed.
"""

from dataclasses import dataclass

import numpy as np
import pytest


@dataclass(frozen=True)
class MemorySplit:
    """A split that is an array in memory."""

    ids: np.ndarray

    @property
    def num_tokens(self) -> int:
        return len(self.ids)

    def read(self, starts: np.ndarray, length: int) -> np.ndarray:
        assert np.all(starts >= 0) and np.all(starts + length <= self.num_tokens)
        return self.ids[np.asarray(starts)[:, None] + np.arange(length)]


@pytest.fixture(scope="session")
def special() -> dict[str, int]:
    return {
        "pad": 1000, "eos": 1000, "sep": 1001, "ENC": 1002, "MASK": 1003, "unk": 1004,
        "sop": 1006, "eop": 1007, "sMASK": 1008, "gMASK": 1009, "dBLOCK": 1010,
    }  # fmt: skip


@pytest.fixture(scope="session")
def sentence_end() -> np.ndarray:
    """Tokens 10 to 23 end a sentence."""
    return (np.arange(1024) >= 10) & (np.arange(1024) < 24)


@pytest.fixture(scope="session")
def make_split(special):
    """Makes a split of documents of random tokens, with a sentence end every 15 tokens or so."""

    def make(num_tokens: int, shortest: int, longest: int, seed: int = 0) -> MemorySplit:
        random = np.random.default_rng(seed)
        ids: list[int] = []
        while len(ids) < num_tokens:
            text = random.integers(10, 220, random.integers(shortest, longest + 1))
            ids += [special["ENC"], *text.tolist(), special["eos"]]
        return MemorySplit(np.array(ids, np.int32))

    return make
