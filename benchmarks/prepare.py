"""Speed and memory of preparing a corpus, compared with the bare tokenizing library.

    python benchmarks/prepare.py
    python benchmarks/prepare.py --megabytes=1000 --tokenizer=gpt2 --files=vocab.json,merges.txt

Makes a .jsonl of English prose (the embedded corpus, its paragraphs in random order), prepares it,
and encodes the same texts with the bare library in as many processes, which neither read nor write
anything. Memory is that of all processes together, shared pages counted once.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--tokenizer", default=None, help="a kind; trained on the text if absent")
    parser.add_argument("--files", default="", help="the kind's files")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the files go and are deleted again")
    arguments = parser.parse_args()

    from glm_jax.data.sources.corpus import documents
    from glm_jax.tokenizer import load_tokenizer, train_sentencepiece

    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        prose = [document.text for document in documents(["embedded"])]
        num_bytes = write_corpus(folder / "corpus.jsonl", prose, arguments.megabytes * 1_000_000)
        if arguments.tokenizer is None:
            tokenizer = train_sentencepiece(prose, folder / "tokenizer", vocab_size=32_000)
        else:
            tokenizer = load_tokenizer(arguments.tokenizer, *arguments.files.split(","))
            tokenizer.save(folder / "tokenizer")
        del prose
        print(f"{num_bytes / 1e6:.0f} MB of text, {arguments.processes} processes")
        for _ in range(arguments.repeats):
            bare, bare_processor = bare_seconds(folder, arguments.processes)
            print(
                f"bare library  {bare:6.1f} s  {num_bytes / 1e6 / bare:6.2f} MB/s  "
                f"{bare_processor:6.1f} s of processors"
            )
            seconds, processor, peak = measured(prepare_corpus, folder, arguments.processes)
            print(
                f"prepare       {seconds:6.1f} s  {num_bytes / 1e6 / seconds:6.2f} MB/s  "
                f"{processor:6.1f} s of processors  {bare / seconds:4.0%} of the bare speed "
                f"({bare_processor / processor:4.0%} by processors)  peak {peak / 2**20:,.0f} MiB"
            )


def write_corpus(path: Path, prose: list[str], num_bytes: int) -> int:
    """Documents of 1 to 40 paragraphs in random order; gives their bytes of text."""
    paragraphs = [part for text in prose for part in text.split("\n\n") if part.strip()]
    generator = random.Random(0)
    written = 0
    with path.open("w") as file:
        while written < num_bytes:
            text = "\n\n".join(generator.choices(paragraphs, k=generator.randint(1, 40)))
            file.write(json.dumps({"text": text}) + "\n")
            written += len(text.encode())
    return written


def measured(function: Callable[..., None], *arguments: Any) -> tuple[float, float, int]:
    """Seconds and processor seconds of a function in a new process, and its most memory."""
    before = children_seconds()
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    started = time.perf_counter()
    process.start()
    peak, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            peak[0] = max(peak[0], sum(map(proportional_memory, family(process.pid))))

    watcher = threading.Thread(target=watch)
    watcher.start()
    process.join()
    over.set()
    watcher.join()
    if process.exitcode:
        raise SystemExit(f"the measured process failed with {process.exitcode}")
    return time.perf_counter() - started, children_seconds() - before, peak[0]


def children_seconds() -> float:
    """Processor seconds of all processes below this one that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def family(process: int | None) -> list[int]:
    """A process and those below it."""
    members, found = [], [process]
    while found:
        member = found.pop()
        if member is None:
            continue
        members.append(member)
        for task in Path(f"/proc/{member}/task").glob("*/children"):
            try:
                found += map(int, task.read_text().split())
            except OSError:
                continue
    return members


def proportional_memory(process: int) -> int:
    """Bytes in memory; of pages shared with others, its part."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def prepare_corpus(folder: Path, processes: int) -> None:
    """The measured work: preparing a corpus, including the start of the workers."""
    from glm_jax.data.prepare.run import prepare
    from glm_jax.data.prepare.runner import LocalRunner
    from glm_jax.tokenizer import load_tokenizer

    prepare(
        [folder / "corpus.jsonl"],
        folder / "store",
        load_tokenizer(folder / "tokenizer"),
        runner=LocalRunner(processes),
        overwrite=True,
    )


def bare_seconds(folder: Path, processes: int) -> tuple[float, float]:
    """Seconds and processor seconds for all texts; they and the tokenizers are loaded before."""
    context = multiprocessing.get_context("spawn")
    ready, start = context.Barrier(processes + 1), context.Barrier(processes + 1)
    used = context.SimpleQueue()
    workers = [
        context.Process(target=encode_bare, args=(folder, part, processes, ready, start, used))
        for part in range(processes)
    ]
    for worker in workers:
        worker.start()
    ready.wait()
    start.wait()
    started = time.perf_counter()
    for worker in workers:
        worker.join()
    return time.perf_counter() - started, sum(used.get() for _ in workers)


def encode_bare(folder: Path, part: int, parts: int, ready: Any, start: Any, used: Any) -> None:
    """Encodes every `parts`-th text, one by one."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with (folder / "corpus.jsonl").open() as lines:
        texts = [json.loads(line)["text"] for n, line in enumerate(lines) if n % parts == part]
    encode = bare_encoder(folder / "tokenizer")
    ready.wait()
    start.wait()
    before = time.process_time()
    for text in texts:
        encode(text)
    used.put(time.process_time() - before)


def bare_encoder(folder: Path) -> Callable[[str], Any]:
    """The library's own function for a saved tokenizer."""
    from glm_jax.tokenizer import load_tokenizer

    pieces: Any = load_tokenizer(folder)._pieces  # pyright: ignore
    if hasattr(pieces, "_processor"):
        return pieces._processor.encode
    library = pieces._tokenizer
    return lambda text: library.encode(text, add_special_tokens=False).ids


if __name__ == "__main__":
    main()
