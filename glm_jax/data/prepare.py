"""From sources of text to a finished token store, in parallel and all or nothing."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from jaxtyping import Integer

from glm_jax.data.atomic import new_folder
from glm_jax.data.corpus import MAXIMUM_CHARACTERS, Document, Incidents, documents
from glm_jax.data.store import METADATA_FILE, StoreWriter
from glm_jax.data.workers import ordered_map
from glm_jax.errors import RunError, UsageError
from glm_jax.tokenizer import Tokenizer, load_tokenizer

REPORT_FILE = "report.json"

# What a worker is given at a time: enough to be worth sending, little enough to keep memory small.
BATCH_CHARACTERS = 1 << 18
BATCH_DOCUMENTS = 1 << 10

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PrepareReport:
    """What went into a store. ``text_bytes`` counts UTF-8, ``tokens`` include ENC and eos."""

    documents: int
    tokens: int
    text_bytes: int
    bytes_per_token: float
    splits: dict[str, dict[str, int]]
    incidents: Incidents
    sources: list[str]
    validation_fraction: float

    def lines(self) -> list[str]:
        """The report for people."""
        splits = ", ".join(
            f"{name} {counts['num_documents']:,} documents with {counts['num_tokens']:,} tokens"
            for name, counts in self.splits.items()
        )
        lines = [
            f"{self.documents:,} documents, {self.text_bytes / 1e6:.1f} MB of text, "
            f"{self.tokens:,} tokens, {self.bytes_per_token:.2f} bytes a token",
            splits,
        ]
        happened = {name: value for name, value in asdict(self.incidents).items() if value}
        for name, value in happened.items():
            lines.append(
                f"{name.replace('_', ' ')}: {value if isinstance(value, int) else ', '.join(value)}"
            )
        return lines


def prepare(
    sources: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    tokenizer: Tokenizer,
    *,
    validation_fraction: float = 0.01,
    text_key: str = "text",
    maximum_characters: int = MAXIMUM_CHARACTERS,
    workers: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> PrepareReport:
    """Read ``sources`` and write them as a token store.

    See ``corpus.documents`` for ``sources``, ``text_key`` and ``maximum_characters``, and
    ``prepare_documents`` for the rest.
    """
    sources = [str(source) for source in sources]
    incidents = Incidents()
    return prepare_documents(
        documents(
            sources,
            text_key=text_key,
            incidents=incidents,
            maximum_characters=maximum_characters,
        ),
        out,
        tokenizer,
        validation_fraction=validation_fraction,
        workers=workers,
        overwrite=overwrite,
        progress=progress,
        sources=sources,
        incidents=incidents,
    )


def prepare_documents(
    documents: Iterable[Document],
    out: str | os.PathLike[str],
    tokenizer: Tokenizer,
    *,
    validation_fraction: float = 0.01,
    workers: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
    sources: Iterable[str] = (),
    incidents: Incidents | None = None,
) -> PrepareReport:
    """Tokenize documents in parallel and write them as a token store.

    Every document becomes ``[ENC] ids [eos]``; special tokens written out in a document are plain
    text. A hash of its text puts a document into "train" or "validation", so that it stays there
    when others come or go. The store is the same, byte for byte, for any number of workers. It is
    made beside ``out`` and moved there when whole; what killed runs left there is removed.

    Args:
      documents: read once.
      out: folder of the store, missing or empty unless ``overwrite``.
      tokenizer: is saved with the store.
      validation_fraction: expected fraction of the documents in "validation".
      workers: number of tokenizing processes; 1 tokenizes in this one.
      overwrite: replace a store at ``out``, once the new one is whole.
      progress: called with the documents and bytes of text done so far, after every batch.
      sources: where the documents come from, for the record.
      incidents: what happened while they were read, for the report.

    Raises:
      UsageError: ``out`` is taken, a number is out of range, or a split would be empty.
      RunError: a worker was killed or the disk failed.
    """
    if not 0 < validation_fraction < 1:
        raise UsageError(f"validation_fraction is {validation_fraction}, expected 0 < value < 1")
    out = Path(out).absolute()
    sources = list(sources)
    try:
        with new_folder(out, partial(check_destination, out, overwrite)) as folder:
            writer = StoreWriter(folder, tokenizer, sources=sources)
            num_bytes = 0
            for num_bytes in _write(documents, writer, folder, validation_fraction, workers):
                if progress is not None:
                    progress(writer.num_documents, num_bytes)
            _check_splits(writer, validation_fraction)
            report = PrepareReport(
                documents=writer.num_documents,
                tokens=writer.num_tokens,
                text_bytes=num_bytes,
                bytes_per_token=num_bytes / writer.num_tokens,
                splits=writer.splits,
                incidents=incidents or Incidents(),
                sources=sources,
                validation_fraction=validation_fraction,
            )
            (folder / REPORT_FILE).write_text(json.dumps(asdict(report), indent=2) + "\n")
            writer.finish()
    except OSError as error:
        raise RunError(f"token store {out} cannot be written: {error}") from error
    return report


def _write(
    documents: Iterable[Document],
    writer: StoreWriter,
    folder: Path,
    validation_fraction: float,
    workers: int,
) -> Iterator[int]:
    """Append all documents to the store; yields the bytes of text done so far."""
    num_bytes = 0
    tokenize = partial(_tokenize, folder / "tokenizer")
    for batch in ordered_map(tokenize, _batches(documents), workers):
        for tokenized in batch:
            writer.append(_split_of(tokenized.digest, validation_fraction), tokenized.ids)
            num_bytes += tokenized.num_bytes
        yield num_bytes


@dataclass(frozen=True)
class _Tokenized:
    ids: Integer[np.ndarray, "L"]
    num_bytes: int
    digest: bytes


def _tokenize(tokenizer_folder: Path, batch: list[Document]) -> list[_Tokenized]:
    tokenizer = _loaded_tokenizer(tokenizer_folder)
    begin, end = tokenizer.special["ENC"], tokenizer.special["eos"]
    return [
        _Tokenized(
            np.array([begin, *tokenizer.encode_text(document.text), end], np.uint32),
            document.num_bytes,
            document.digest,
        )
        for document in batch
    ]


@lru_cache(maxsize=1)
def _loaded_tokenizer(folder: Path) -> Tokenizer:
    """Loaded once in every worker, rather than sent along with every batch."""
    return load_tokenizer(folder)


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if characters >= BATCH_CHARACTERS or len(batch) >= BATCH_DOCUMENTS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _split_of(digest: bytes, validation_fraction: float) -> str:
    place = int.from_bytes(digest, "big") / (1 << 8 * len(digest))  # uniform in [0, 1)
    return "validation" if place < validation_fraction else "train"


def _check_splits(writer: StoreWriter, validation_fraction: float) -> None:
    if writer.num_documents == 0:
        raise UsageError("the sources hold no document with text")
    for name, counts in writer.splits.items():
        if counts["num_documents"] == 0:
            raise UsageError(
                f"the {name} split would be empty: {writer.num_documents} documents with "
                f"validation_fraction {validation_fraction}; change the fraction or add documents"
            )


def check_destination(out: Path, overwrite: bool) -> None:
    """Makes sure that a store can be written to ``out``.

    Raises:
      UsageError: a store is there and not to be replaced, or something that is no store.
    """
    is_store = (out / METADATA_FILE).is_file()
    if is_store and not overwrite:
        raise UsageError(f"there is a token store at {out} already; name another or overwrite it")
    if not is_store and out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out} exists and is not a token store")
