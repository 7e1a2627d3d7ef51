"""Speed of making batches on one core, compared with plain Python.

    python benchmarks/data.py
    python benchmarks/data.py --store_tokens 10000000 --batch_size 256

Makes batches of 512-token sequences, ready for the device, with the token objective and with the
mixture of GLM-10B: from texts in memory, and from a token store on disk. Everything runs on one
core. Tokens are positions of the sequence; seconds are those of the process (its CPU time), so that
other work on the machine does not count, and by the clock.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from glm_jax.data.batches.batch import Batch
    from glm_jax.data.blanks.config import BlankConfig
    from glm_jax.tokenizer import Tokenizer

VOCABULARY = 30_000
FIRST_WORD = 5  # the special tokens of BERT come before it
SENTENCE_ENDS = 40  # number of words that end sentences
SEED = 0


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sequence_length", type=int, default=512)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--store_tokens", type=int, default=100_000_000)
    parser.add_argument("--folder", type=Path, help="where the store goes and is deleted again")
    parser.add_argument("--core", type=int, default=0)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {arguments.core})  # before TensorFlow starts its threads
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

    from glm_jax.data.blanks.config import BlankConfig
    from tests.data.store.writing import write_store

    mixture = BlankConfig(
        token=0.5, sentence=0.3, document=0.2, block_mask_probability=0.1, task_masks=True
    )
    settings = {"token objective": BlankConfig(), "mixture of GLM-10B": mixture}
    print(f"{'':34}{'M tokens/s':>12}{'by the clock':>14}{'learned':>9}{'padding':>9}{'ratio':>8}")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        tokenizer = make_tokenizer(folder)
        memory = MemorySplit(tokens_of_documents(2_000_000, tokenizer.special))
        plain: dict[str, float] = {}
        for name, blanks in settings.items():
            measured = measure(plain_batches(memory, blanks, tokenizer, arguments), arguments)
            plain[name] = measured["rate"]
            show(f"{name}, plain Python", measured)
            measured = measure(our_batches(memory, blanks, tokenizer, arguments), arguments)
            show(f"{name}, ours", measured, plain[name])
        documents = repeated_documents(memory.tokens, tokenizer.special, arguments.store_tokens)
        store = write_store(folder / "store", {"train": documents}, tokenizer)
        for name, blanks in settings.items():
            batches = our_batches(store.split("train"), blanks, tokenizer, arguments)
            show(f"{name}, from a store", measure(batches, arguments), plain[name])


class MemorySplit:
    """A token stream that is an array."""

    def __init__(self, tokens: np.ndarray) -> None:
        self.tokens = tokens

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    def read(self, starts: np.ndarray, length: int) -> np.ndarray:
        return self.tokens[np.asarray(starts)[:, None] + np.arange(length)]


def make_tokenizer(folder: Path) -> Tokenizer:
    """A vocabulary of made-up words, some of which end sentences."""
    from glm_jax import load_tokenizer

    words = [f"a{i}." if i < SENTENCE_ENDS else f"a{i}" for i in range(VOCABULARY - FIRST_WORD)]
    lines = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (folder / "vocab.txt").write_text("\n".join(lines))
    return load_tokenizer("bert", folder / "vocab.txt", task_mask=True, decoder_mask=True)


def tokens_of_documents(count: int, special: Mapping[str, int]) -> np.ndarray:
    """Documents of random words, 600 on average, with a sentence end every 20 words or so."""
    random = np.random.default_rng(SEED)
    tokens = random.integers(FIRST_WORD + SENTENCE_ENDS, VOCABULARY, count, np.int32)
    ends = random.random(count) < 1 / 20
    tokens[ends] = random.integers(FIRST_WORD, FIRST_WORD + SENTENCE_ENDS, ends.sum())
    borders = np.cumsum(random.geometric(1 / 600, count // 300) + 2)
    borders = borders[borders < count - 1]
    tokens[borders], tokens[borders + 1] = special["eos"], special["ENC"]
    tokens[0], tokens[-1] = special["ENC"], special["eos"]
    return tokens


def repeated_documents(
    tokens: np.ndarray, special: Mapping[str, int], num_tokens: int
) -> Iterator[Any]:
    """The documents of a stream, over and over until there are enough tokens."""
    ends = np.flatnonzero(tokens == special["eos"]) + 1
    for _ in range(-(-num_tokens // len(tokens))):
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            yield tokens[start:end]


def our_batches(
    split: Any, blanks: BlankConfig, tokenizer: Tokenizer, arguments: argparse.Namespace
) -> Iterator[Batch]:
    """Batches of exact epochs over a token stream."""
    from glm_jax.data.batches.pipeline import batches
    from glm_jax.data.batches.rows import RowMaker
    from glm_jax.data.order.epochs import EpochOrder, EpochTexts

    length, special = arguments.sequence_length, tokenizer.special
    order = EpochOrder(split.num_tokens, blanks, sequence_length=length, seed=SEED)
    texts = EpochTexts(split, order, enc=special["ENC"])
    make = RowMaker(texts, blanks, special, tokenizer.sentence_end, length, SEED)
    return batches(make, batch_size=arguments.batch_size)


def plain_batches(
    split: MemorySplit,
    blanks: BlankConfig,
    tokenizer: Tokenizer,
    arguments: argparse.Namespace,
) -> Iterator[Batch]:
    """The same examples one at a time: a text of the expected length from a random position."""
    from plain_blanks import PlainBlanks

    from glm_jax.data.blanks.objectives import expected_text_length

    length, enc = arguments.sequence_length, tokenizer.special["ENC"]
    maker = PlainBlanks(blanks, tokenizer.special, tokenizer.sentence_end, length)
    random = np.random.default_rng(SEED)
    kinds = list(blanks.proportions)
    sizes = {kind: expected_text_length(kind, blanks, length) for kind in kinds}
    while True:
        drawn = random.choice(len(kinds), arguments.batch_size, p=[*blanks.proportions.values()])
        objectives = [kinds[number] for number in drawn]
        starts = random.integers(0, split.num_tokens - length, arguments.batch_size)
        texts = []
        for start, kind in zip(starts, objectives, strict=True):
            tokens = split.tokens[start : start + sizes[kind]].tolist()
            texts.append(tokens if tokens[0] == enc else [enc, *tokens[:-1]])
        yield maker.batch(texts, objectives)


def measure(batches: Iterator[Batch], arguments: argparse.Namespace) -> dict[str, float]:
    """Rates in M tokens/s, and the shares of positions that are learned and that are padding."""
    for _ in range(5):
        next(batches)
    shape = (arguments.batch_size, arguments.sequence_length)
    count, seen = 0, []
    started, started_clock = time.process_time(), time.perf_counter()
    while time.perf_counter() - started_clock < arguments.seconds:
        batch = next(batches)
        assert batch["tokens"].shape == shape and batch["position_ids"].shape[1] == 2
        count += 1
        if count <= 50:
            seen.append(batch)
    spent, clock = time.process_time() - started, time.perf_counter() - started_clock
    tokens = count * shape[0] * shape[1] / 1e6
    return {
        "rate": tokens / spent,
        "clock": tokens / clock,
        "learned": float(np.mean([batch["loss_mask"].mean() for batch in seen])),
        "padding": float(np.mean([is_padding(batch).mean() for batch in seen])),
    }


def is_padding(batch: Batch) -> np.ndarray:
    positions = batch["position_ids"].sum(axis=1) == 0
    return positions & (np.arange(positions.shape[1]) > 0)


def show(name: str, measured: Mapping[str, float], plain: float | None = None) -> None:
    """Prints a line; `plain` is the rate of plain Python to compare with."""
    ratio = f"{measured['rate'] / plain:.1f}x" if plain else ""
    print(
        f"{name:34}{measured['rate']:12.2f}{measured['clock']:14.2f}"
        f"{measured['learned']:9.3f}{measured['padding']:9.3f}{ratio:>8}",
        flush=True,
    )


if __name__ == "__main__":
    main()
