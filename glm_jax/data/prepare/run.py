"""From sources of text to a finished token store, in parallel and all or nothing.

The sources are split into shards, each of which is tokenized into its own file; when all are
there, the arrays of the store are written from them, again in parts that don't depend on each
other. So any number of processes or machines gives the same store, and a run that was killed
resumes with the missing shards.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from glm_jax.data.prepare.assemble import Plan, SplitFractions, WritingArrays, plan_arrays
from glm_jax.data.prepare.report import (
    PICTURE_FILE,
    REPORT_FILE,
    PrepareReport,
    draw_report,
    frequent_tokens,
    length_counts,
)
from glm_jax.data.prepare.runner import LocalRunner, Runner
from glm_jax.data.prepare.scratch import remove_finished, shard_folder
from glm_jax.data.prepare.tokenize import Tokenizing
from glm_jax.data.sources.corpus import checked_options
from glm_jax.data.sources.document import MAXIMUM_CHARACTERS
from glm_jax.data.sources.filters import filter_stamp
from glm_jax.data.sources.inputs import find_inputs
from glm_jax.data.store.arrays import create_array
from glm_jax.data.store.store import METADATA_FILE, id_type, write_metadata
from glm_jax.errors import RunError, UsageError
from glm_jax.io.atomic import new_folder
from glm_jax.io.files import copy_folder, file_exists, remove_folder, write_file
from glm_jax.io.paths import is_tensorstore_location, is_url, resolve_path
from glm_jax.tokenizer import Tokenizer

# Format of a shard's file; shards of another version are written again.
_SHARD_VERSION = 2

Progress = Callable[[int, int], None]


def prepare(
    sources: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    tokenizer: Tokenizer,
    *,
    validation_fraction: float = 0.01,
    test_fraction: float = 0.0,
    text_key: str = "text",
    maximum_characters: int = MAXIMUM_CHARACTERS,
    drop_duplicates: bool = False,
    filter: str | None = None,
    runner: Runner | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> PrepareReport:
    """Read ``sources`` and write them as a token store.

    Every document becomes ``[ENC] ids [eos]``; special tokens written out in a document are plain
    text. A hash of its text puts a document into "train", "validation" or "test", so that it stays
    there when others come or go. The store is the same, byte for byte, whatever runner makes it,
    and however often that was killed on the way.

    A path appears when its store is complete; at a URL the metadata is written
    last, and a folder without it is no store. The shards of a killed run are kept for the next.

    Args:
      sources: see ``corpus.documents``, as for ``text_key`` and ``maximum_characters``.
      out: folder of the store, missing or empty unless ``overwrite``; a path or URL.
      tokenizer: is saved with the store.
      validation_fraction: expected fraction of the documents in "validation".
      test_fraction: expected fraction of the documents in "test"; 0 makes no such split.
      drop_duplicates: keep only the first of documents (parts, of those too long) of equal text.
      filter: ``MODULE:FUNCTION`` or ``FILE.py:FUNCTION``; only a ``Document`` for which the
        function is true is kept.
      runner: does the work; one process by default.
      overwrite: replace a store at ``out``, once the new one is complete.
      progress: called with the documents and bytes of text done so far, after every shard.

    Raises:
      UsageError: ``out`` is taken, a number is out of range, a source can't be used, the filter
        fails, or a split would be empty.
      RunError: a worker was killed, the disk failed, or another process prepares the same store.
    """
    fractions, runner = SplitFractions(validation_fraction, test_fraction), runner or LocalRunner()
    options = checked_options(text_key, maximum_characters)
    sources = _checked_sources(sources)
    out = _checked_destination(out, overwrite, runner)
    inputs = find_inputs(sources, text_key)
    job = [tokenizer.fingerprint, repr(options), filter and filter_stamp(filter), repr(inputs)]
    try:
        with shard_folder(out, _stamp_of([_SHARD_VERSION, *job])) as folder:
            tokenizer.save(f"{folder}/tokenizer")
            work = Tokenizing(folder, f"{folder}/tokenizer", options, filter)
            names = _tokenized(runner.shards(inputs, options, work, folder), progress)
            plan = _planned(folder, names, fractions, out, drop_duplicates)
            with _new_store(out, overwrite) as store:
                return _write(store, folder, plan, fractions, tokenizer, runner, sources, filter)
    except OSError as error:
        raise RunError(f"token store {out} cannot be written: {error}") from error


def _stamp_of(job: list) -> str:
    """A short name for all that the shards depend on."""
    return hashlib.sha256(json.dumps(job).encode()).hexdigest()[:16]


def _checked_sources(sources: Iterable[str | os.PathLike[str]]) -> list[str]:
    """The sources as text.

    Raises:
      UsageError: one of them is empty.
    """
    texts = [str(source) for source in sources]
    if not all(text.strip() for text in texts):
        raise UsageError("a SOURCE is empty; expected a path, URL or data set")
    return texts


def _checked_destination(out: str | os.PathLike[str], overwrite: bool, runner: Runner) -> str:
    """The absolute path or URL of the store.

    Raises:
      UsageError: the runner can't write there, or something is there.
    """
    resolved = str(resolve_path(out, "--out"))
    check_destination(resolved, overwrite)
    if not is_tensorstore_location(resolved) and not isinstance(runner, LocalRunner):
        raise UsageError(
            f"--out is {resolved}, which only the processes of one machine can write; give other "
            "runners a path that they share, or a URL of gs:// or s3://"
        )
    return resolved


def _tokenized(shards: Iterable[tuple[str, int, int]], progress: Progress | None) -> list[str]:
    """The names of all shards, after the last of them is written."""
    names: list[str] = []
    documents = num_bytes = 0
    for name, more_documents, more_bytes in shards:
        names.append(name)
        documents += more_documents
        num_bytes += more_bytes
        if progress is not None:
            progress(documents, num_bytes)
    return names


def _planned(
    folder: str, names: list[str], fractions: SplitFractions, out: str, drop_duplicates: bool
) -> Plan:
    """Where everything goes.

    Raises:
      UsageError: a split would be empty.
    """
    with TemporaryDirectory(dir=None if is_url(folder) else folder) as scratch:
        plan = plan_arrays(folder, names, fractions, Path(scratch) if drop_duplicates else None)
    try:
        _check_splits(plan, fractions)
    except UsageError:
        remove_folder(folder)  # nothing to resume from
        raise
    return plan


def _write(
    store: str,
    folder: str,
    plan: Plan,
    fractions: SplitFractions,
    tokenizer: Tokenizer,
    runner: Runner,
    sources: list[str],
    filter: str | None,
) -> PrepareReport:
    """Writes all of a store, its metadata last."""
    splits = plan.splits
    tokenizer.save(f"{store}/tokenizer")
    data_type = id_type(tokenizer.padded_vocab_size)
    for split, counts in splits.items():
        create_array(f"{store}/{split}/tokens", data_type, counts["num_tokens"])
        create_array(f"{store}/{split}/document_starts", "int64", counts["num_documents"])
    writing = WritingArrays(folder, store, fractions, tokenizer.padded_vocab_size)
    counts = runner.total(plan.parts(), writing, folder)
    num_tokens = sum(counts["num_tokens"] for counts in splits.values())
    report = PrepareReport(
        documents=sum(counts["num_documents"] for counts in splits.values()),
        tokens=num_tokens,
        text_bytes=plan.text_bytes,
        bytes_per_token=plan.text_bytes / num_tokens,
        splits=splits,
        duplicates=plan.duplicates,
        incidents=plan.stats,
        length_counts=length_counts(plan.length_counts),
        frequent_tokens=frequent_tokens(counts, tokenizer),
        sources=sources,
        validation_fraction=fractions.validation,
        test_fraction=fractions.test,
        filter=filter,
    )
    content = json.dumps(dataclasses.asdict(report), indent=2) + "\n"
    write_file(f"{store}/{REPORT_FILE}", content.encode())
    write_file(f"{store}/{PICTURE_FILE}", draw_report(report))
    write_metadata(store, tokenizer, splits, sources)
    return report


def _check_splits(plan: Plan, fractions: SplitFractions) -> None:
    documents = {name: counts["num_documents"] for name, counts in plan.splits.items()}
    total = sum(documents.values())
    if total == 0:
        why = "; ".join(plan.stats.lines())
        raise UsageError(f"the sources hold no document with text{f' ({why})' if why else ''}")
    for name, number in documents.items():
        if number == 0:
            raise UsageError(
                f"the {name} split would be empty: {total} documents with "
                f"validation_fraction {fractions.validation} and "
                f"test_fraction {fractions.test}; change the fractions or add documents"
            )


@contextmanager
def _new_store(out: str, overwrite: bool) -> Iterator[str]:
    """Give the folder to write the store into: ``out``, or one that is moved or uploaded there."""
    check = partial(check_destination, out, overwrite)
    if not is_url(out):
        with new_folder(Path(out), check) as folder:
            yield str(folder)
    elif is_tensorstore_location(out):
        check()
        remove_folder(out)
        yield out
    else:
        with TemporaryDirectory(prefix="glm-jax-store-") as folder:
            yield folder
            check()
            remove_folder(out)
            copy_folder(folder, out, last=METADATA_FILE)


def check_destination(out: str | os.PathLike[str], overwrite: bool) -> None:
    """Makes sure that a store can be written to ``out``, a path or URL.

    Raises:
      UsageError: a store is there and not to be replaced, or something that is no store.
    """
    out = str(resolve_path(out, "--out"))
    finished = f"{out}/{METADATA_FILE}"
    if file_exists(finished):
        if not overwrite:
            remove_finished(out, finished)
            raise UsageError(
                f"there is a token store at {out} already; name another or overwrite it"
            )
    elif not is_url(out):
        path = Path(out)
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise UsageError(f"{out} exists and is not a token store")
