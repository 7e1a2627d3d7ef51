"""Speed and memory of a conversion, compared with a plain copy of the same files with checksums.

    python benchmarks/convert.py
    python benchmarks/convert.py --num_layers 4 --hidden_size 512
    python benchmarks/convert.py --chatglm --repeats 1

Makes a checkpoint of the original's form with random weights (by default of the size of GLM-2B in
float16, over four ranks; with --chatglm the 13.4 GB of ChatGLM-6B in torch files, for which 40 GB
of disk are needed), converts it to ours and back, and copies its files. Copy and conversion both
read everything, write it, read what was written and compare CRC-32 checksums. Every
measurement is a process of its own; its memory is its peak above its state after imports.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

BLOCK_BYTES = 8 << 20
# Layers, hidden size, vocabulary and positions of GLM-2B and of ChatGLM-6B.
SIZES = {"original": (36, 2048, 50304, 1024), "huggingface": (28, 4096, 130528, 2048)}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--chatglm", action="store_true", help="ChatGLM-6B's form and sizes")
    parser.add_argument("--num_layers", type=int)
    parser.add_argument("--hidden_size", type=int)
    parser.add_argument("--vocab_size", type=int)
    parser.add_argument("--max_sequence_length", type=int)
    parser.add_argument("--model_parallel_size", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the files go and are deleted again")
    arguments = parser.parse_args()
    form = "huggingface" if arguments.chatglm else "original"
    given = (
        arguments.num_layers,
        arguments.hidden_size,
        arguments.vocab_size,
        arguments.max_sequence_length,
    )
    sizes = tuple(one or other for one, other in zip(given, SIZES[form], strict=True))
    ranks = 1 if arguments.chatglm else arguments.model_parallel_size
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        source, native, back, copy = (
            folder / part for part in ("source", "native", "back", "copy")
        )
        make = make_chatglm if arguments.chatglm else make_checkpoint
        in_process(make, source, sizes, ranks)
        num_bytes = sum(file.stat().st_size for file in files_of(source))
        print(f"checkpoint of {num_bytes / 1e9:.2f} GB in {len(files_of(source))} files")
        for _ in range(arguments.repeats):
            copied = in_process(copy_folder, source, copy)
            shutil.rmtree(copy)
            there = in_process(convert_folder, source, native, "native", ranks)
            returned = in_process(convert_folder, native, back, form, ranks)
            shutil.rmtree(native)
            shutil.rmtree(back)
            for what, result in (
                ("copy with checksums", copied),
                (f"{form} -> native", there),
                (f"native -> {form}", returned),
            ):
                speed = num_bytes / 1e6 / result["seconds"]
                share = copied["seconds"] / result["seconds"]
                memory = result["peak_bytes"] / 2**20
                print(
                    f"{what:20}  {result['seconds']:6.1f} s  {speed:6.0f} MB/s  {share:4.0%} of "
                    f"the copy's speed  peak {memory:6.0f} MiB above the imports"
                )


def in_process(function: Callable[..., None], *arguments: Any) -> dict[str, float]:
    """Runs a function in a new process: its seconds and its peak memory above the imports'."""
    os.sync()  # so that it doesn't wait for what was written before
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=measure, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        return json.loads(receiver.recv())
    finally:
        process.join()


def measure(sender: Any, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """What the new process does."""
    import glm_jax.convert.convert  # noqa: F401  (imports are not measured)

    before = peak_memory()
    started = time.perf_counter()
    function(*arguments)
    seconds = time.perf_counter() - started
    sender.send(json.dumps({"seconds": seconds, "peak_bytes": peak_memory() - before}))


def peak_memory() -> int:
    """The most bytes that this process has had in memory."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def make_checkpoint(folder: Path, sizes: tuple[int, int, int, int], ranks: int) -> None:
    """An original checkpoint of random finite numbers in float16."""
    import numpy as np

    from glm_jax.convert.dimensions import Dimensions
    from glm_jax.convert.layouts.original_writer import OriginalDestination
    from glm_jax.convert.weights import TensorInfo

    num_layers, hidden_size, vocab_size, max_sequence_length = sizes
    dimensions = Dimensions(
        vocab_size=vocab_size,
        num_layers=num_layers,
        hidden_size=hidden_size,
        position_rows=max_sequence_length + 1,
        block_positions=True,
        relative_heads=None,
    )
    dtype = np.dtype(np.float16)
    infos = {name: TensorInfo(shape, dtype) for name, shape in dimensions.shapes().items()}
    folder.mkdir()
    write_random(OriginalDestination(folder, list(infos), infos, 1000, ranks), infos)


def make_chatglm(folder: Path, sizes: tuple[int, int, int, int], _ranks: int) -> None:
    """ChatGLM-6B's torch files, LayerNorms in float32 and all else in float16."""
    import numpy as np

    from glm_jax.convert.dimensions import Dimensions
    from glm_jax.convert.layouts.chatglm_writer import ChatGLMDestination
    from glm_jax.convert.weights import SourceMetadata, TensorInfo

    num_layers, hidden_size, vocab_size, _ = sizes
    dimensions = Dimensions(
        vocab_size=vocab_size,
        num_layers=num_layers,
        hidden_size=hidden_size,
        position_rows=0,
        block_positions=True,
        relative_heads=None,
        rotary=True,
    )
    infos = {
        name: TensorInfo(shape, np.dtype(np.float32 if "layernorm" in name else np.float16))
        for name, shape in dimensions.shapes().items()
    }
    folder.mkdir()
    metadata = SourceMetadata(num_attention_heads=hidden_size // 128)
    write_random(
        ChatGLMDestination(
            folder, list(infos), infos, metadata, file_format="bin", max_shard_bytes=1 << 31
        ),
        infos,
    )


def write_random(destination: Any, infos: dict[str, Any]) -> None:
    """Random finite numbers for every tensor."""
    import numpy as np

    generator = np.random.default_rng(0)
    for name in destination.order:
        info = infos[name]
        bits = generator.integers(0, 1 << 16, info.nbytes // 2, np.uint16)
        bits &= 0xBFFF  # without the exponent's highest bit, no number is infinite
        destination.write(name, bits.view(info.dtype).reshape(info.shape))
    destination.finish()


def copy_folder(source: Path, target: Path) -> None:
    """Copies every file in blocks, checksumming what is read, then checksums the copies."""
    for file in files_of(source):
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        read, found = 0, 0
        with file.open("rb", buffering=0) as reader, copy.open("wb", buffering=0) as writer:
            while block := reader.read(BLOCK_BYTES):
                read = zlib.crc32(block, read)
                writer.write(block)
        with copy.open("rb", buffering=0) as reader:
            while block := reader.read(BLOCK_BYTES):
                found = zlib.crc32(block, found)
        assert read == found, copy


def convert_folder(source: Path, target: Path, kind: str, ranks: int) -> None:
    """Converts without showing anything."""
    from glm_jax.convert.convert import convert

    convert(
        source,
        target,
        kind,
        stages=lambda _description, _bytes: contextlib.nullcontext(lambda _done: None),
        model_parallel_size=ranks,
    )


def files_of(folder: Path) -> list[Path]:
    """All files of a folder."""
    return sorted(file for file in folder.rglob("*") if file.is_file())


if __name__ == "__main__":
    main()
