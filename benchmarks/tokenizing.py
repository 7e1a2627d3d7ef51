"""Speed of every kind of tokenizer compared with its bare library, on the same text and threads.

    python benchmarks/tokenizing.py VOCABULARIES
    python benchmarks/tokenizing.py VOCABULARIES --megabytes 40 --repeats 7

VOCABULARIES is a folder with bert-large-uncased-vocab.txt, gpt2-vocab.json, gpt2-merges.txt,
roberta-vocab.json, roberta-merges.txt and cog-pretrain.model; kinds whose files are missing are
left out. The text is the embedded corpus. `encode` takes one document after the other in one
thread, by processor time; `encode_batch` takes a hundred on all cores, by the clock. Ours and the
library take turns, the best of the repeats counts, and the ids are compared.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import sentencepiece
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from glm_jax.data.sources.corpus import documents
from glm_jax.tokenizer import Tokenizer, load_tokenizer

FILES = {
    "bert": ["bert-large-uncased-vocab.txt"],
    "gpt2": ["gpt2-vocab.json", "gpt2-merges.txt"],
    "roberta": ["roberta-vocab.json", "roberta-merges.txt"],
    "chinese": ["cog-pretrain.model"],
    "huggingface": ["gpt2-vocab.json", "gpt2-merges.txt"],  # of which a tokenizer.json is made
}

TEXTS_AT_ONCE = 100

Encode = Callable[[list[str]], list[list[int]]]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("vocabularies", type=Path)
    parser.add_argument("--megabytes", type=float, default=9.0)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    texts = read_texts(arguments.megabytes)
    num_bytes = sum(len(text.encode()) for text in texts)
    print(f"{len(texts):,} documents, {num_bytes / 1e6:.1f} MB, {os.cpu_count()} cores; MB/s")
    print(f"{'kind':12} {'':13} {'ours':>7} {'library':>8}  share")
    for kind, files in FILES.items():
        paths = [arguments.vocabularies / name for name in files]
        missing = [path.name for path in paths if not path.is_file()]
        if missing:
            print(f"{kind:12} left out: there is no {', '.join(missing)}")
            continue
        ours, one, batch = make(kind, paths)
        for name, mine, bare, clock in (
            ("encode", one_by_one(ours), one, time.process_time),
            ("encode_batch", ours.encode_batch, batch, time.perf_counter),
        ):
            best, best_bare = compare(mine, bare, texts, arguments.repeats, clock)
            print(
                f"{kind:12} {name:13} {num_bytes / 1e6 / best:7.2f} "
                f"{num_bytes / 1e6 / best_bare:8.2f}  {best_bare / best:4.0%}",
                flush=True,
            )


def one_by_one(tokenizer: Tokenizer) -> Encode:
    """Encoding in one thread."""
    return lambda texts: [tokenizer.encode(text) for text in texts]


def read_texts(megabytes: float) -> list[str]:
    """Documents of the embedded corpus."""
    texts, num_bytes = [], 0
    for document in documents(["embedded"]):
        if num_bytes > megabytes * 1e6:
            break
        texts.append(document.text)
        num_bytes += document.num_bytes
    return texts


def compare(
    ours: Encode,
    bare: Encode,
    texts: list[str],
    repeats: int,
    clock: Callable[[], float],
) -> tuple[float, float]:
    """The minimum seconds of both, which alternate on every part of the texts."""
    total = total_bare = 0.0
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        part = texts[start : start + TEXTS_AT_ONCE]
        assert ours(part) == bare(part)
        turns = [(seconds(ours, part, clock), seconds(bare, part, clock)) for _ in range(repeats)]
        total += min(turn[0] for turn in turns)
        total_bare += min(turn[1] for turn in turns)
    return total, total_bare


def seconds(encode: Encode, texts: list[str], clock: Callable[[], float]) -> float:
    """How long the texts take."""
    start = clock()
    encode(texts)
    return clock() - start


def make(kind: str, paths: Sequence[Path]) -> tuple[Tokenizer, Encode, Encode]:
    """Our tokenizer and what its bare library does, one text after the other and in a batch."""
    if kind == "chinese":
        ours = load_tokenizer(kind, *paths, task_mask=True)
        processor = sentencepiece.SentencePieceProcessor(model_file=str(paths[0]))
        threads = os.cpu_count() or 1
        return (
            ours,
            lambda texts: [processor.encode(text) for text in texts],
            lambda texts: processor.encode(texts, num_threads=threads),
        )
    library = bare_library(kind if kind in ("bert", "roberta") else "gpt2", paths)
    if kind == "huggingface":
        with TemporaryDirectory() as folder:
            library.save(f"{folder}/tokenizer.json")
            ours = load_tokenizer(kind, folder, task_mask=True)
    else:
        ours = load_tokenizer(kind, *paths, task_mask=True)
    return (
        ours,
        lambda texts: [library.encode(text, add_special_tokens=False).ids for text in texts],
        lambda texts: [
            encoding.ids for encoding in library.encode_batch_fast(texts, add_special_tokens=False)
        ],
    )


def bare_library(kind: str, paths: Sequence[Path]) -> tokenizers.Tokenizer:
    """The library's own tokenizer of a vocabulary's files."""
    names = [str(path) for path in paths]
    if kind == "bert":
        pieces = models.WordPiece.from_file(names[0], unk_token="[UNK]")
        library = tokenizers.Tokenizer(pieces)
        library.normalizer = normalizers.BertNormalizer(lowercase=True)
        library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        return library
    library = tokenizers.Tokenizer(models.BPE.from_file(*names))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return library


if __name__ == "__main__":
    main()
