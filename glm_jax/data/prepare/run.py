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
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from glm_jax.data.prepare.assemble import Plan, WritingArrays, check_splits, plan_arrays
from glm_jax.data.prepare.destination import check_destination, check_runner, new_store
from glm_jax.data.prepare.report import (
    PICTURE_FILE,
    REPORT_FILE,
    PrepareReport,
    draw_report,
    frequent_tokens,
    length_counts,
)
from glm_jax.data.prepare.runner import LocalRunner, Runner
from glm_jax.data.prepare.scratch import scratch_location, shard_folder
from glm_jax.data.prepare.splits import (
    AUTO,
    DOCUMENTS,
    STRETCHES,
    EmptySplitError,
    SplitFractions,
    check_split_by,
)
from glm_jax.data.prepare.tokenize import Tokenizing
from glm_jax.data.sources.corpus import checked_options
from glm_jax.data.sources.document import MAXIMUM_CHARACTERS, ReadOptions, ReadStats
from glm_jax.data.sources.filters import filter_stamp
from glm_jax.data.sources.inputs import Input, find_inputs, is_one_document
from glm_jax.data.store.arrays import create_array
from glm_jax.data.store.store import id_type, write_metadata
from glm_jax.errors import RunError, UsageError
from glm_jax.io.files import (
    folder_names,
    remove_folder,
    write_file,
)
from glm_jax.io.paths import is_url, resolve_path
from glm_jax.tokenizer import Tokenizer

# Format of a shard's file; shards of another version are written again.
_SHARD_VERSION = 3

Progress = Callable[[int, int], None]


def prepare(
    sources: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    tokenizer: Tokenizer,
    *,
    validation_fraction: float = 0.01,
    test_fraction: float = 0.0,
    split_by: str = AUTO,
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
    there when others come or go. So do the stretches of long documents, where these are divided.
    The store is the same, byte for byte, whatever runner makes it, and however often it was killed.

    A path appears when its store is complete; at a URL the metadata is written last, and a folder
    without it is no store. The shards of a killed run are kept for the next.

    Args:
      sources: see ``corpus.documents``, as for ``text_key`` and ``maximum_characters``.
      out: folder of the store, missing or empty unless ``overwrite``; a path or URL.
      tokenizer: is saved with the store.
      validation_fraction: expected fraction of the documents in "validation".
      test_fraction: expected fraction of the documents in "test"; 0 makes no such split.
      split_by: "documents" keeps every document in one split, "stretches" divides long ones between
        the splits (see ``sources.stretches``), "auto" only where a split would have no document.
      drop_duplicates: keep only the first of documents (or their parts) of equal text.
      filter: ``MODULE:FUNCTION`` or ``FILE.py:FUNCTION`` that is true for each ``Document`` (or
        part of one) to keep.
      runner: does the work; one process by default.
      overwrite: replace a store at ``out``, once the new one is complete.
      progress: called with the documents and bytes of text done so far, after every shard.

    Raises:
      UsageError: ``out``, a number, a source or the filter can't be used, or a split is empty.
      RunError: a worker was killed, the disk failed, or another process prepares the same store.
    """
    fractions = SplitFractions(validation_fraction, test_fraction)
    options = checked_options(text_key, maximum_characters)
    sources = _checked_sources(sources)
    out = str(resolve_path(out, "--out"))
    check_destination(out, overwrite)
    check_runner(out, runner)
    found = ReadStats()
    inputs = find_inputs(sources, text_key, found)
    job = _Job(sources, inputs, found, out, tokenizer, fractions, filter, progress, overwrite)
    job = dataclasses.replace(job, drop_duplicates=drop_duplicates, runner=runner or job.runner)
    try:
        return job.run_split_by(split_by, options)
    except OSError as error:
        raise RunError(f"token store {out} cannot be written: {error}") from error


@dataclasses.dataclass(frozen=True)
class _Job:
    """All that a store depends on but how documents are read."""

    sources: list[str]
    inputs: list[Input]
    found: ReadStats
    out: str
    tokenizer: Tokenizer
    fractions: SplitFractions
    filter: str | None
    progress: Progress | None
    overwrite: bool
    drop_duplicates: bool = False
    runner: Runner = dataclasses.field(default_factory=LocalRunner)

    def stamp(self, options: ReadOptions, mark: str) -> str:
        """A short name for all that the shards depend on."""
        read = [repr(options), self.filter and filter_stamp(self.filter), repr(self.inputs)]
        job = [_SHARD_VERSION, self.tokenizer.fingerprint, *read, mark]
        return hashlib.sha256(json.dumps(job).encode()).hexdigest()[:16]

    def run_split_by(self, split_by: str, options: ReadOptions) -> PrepareReport:
        """Writes the store, with splits of documents or of stretches."""
        check_split_by(split_by)
        divided = dataclasses.replace(options, shares=self.fractions.shares)
        if split_by == STRETCHES or (split_by == AUTO and is_one_document(self.inputs)):
            return self.run(divided)
        # Shards with this mark are there only if a run that was killed had found that documents
        # leave a split empty.
        mark = f"divided; drop_duplicates is {self.drop_duplicates}"
        names = folder_names(scratch_location(self.out))
        if split_by == AUTO and self.stamp(divided, mark) in names:
            return self.run(divided, mark)
        try:
            return self.run(options)
        except EmptySplitError:
            if split_by == DOCUMENTS:
                raise
        return self.run(divided, mark)

    def run(self, options: ReadOptions, mark: str = "") -> PrepareReport:
        """Writes the store.

        Raises:
          EmptySplitError: a split would have no document; nothing is left of the shards then.
        """
        with shard_folder(self.out, self.stamp(options, mark)) as folder:
            self.tokenizer.save(f"{folder}/tokenizer")
            work = Tokenizing(folder, f"{folder}/tokenizer", options, self.filter)
            shards = self.runner.shards(self.inputs, options, work, folder)
            names = _tokenized(shards, self.progress)
            plan = self._planned(folder, names, options)
            with new_store(self.out, self.overwrite) as store:
                return self._write(store, folder, plan, options)

    def _planned(self, folder: str, names: list[str], options: ReadOptions) -> Plan:
        """Where everything goes."""
        with TemporaryDirectory(dir=None if is_url(folder) else folder) as scratch:
            kept_once = Path(scratch) if self.drop_duplicates else None
            plan = plan_arrays(folder, names, self.fractions, kept_once)
        plan.stats.add(self.found)
        try:
            check_splits(plan, self.fractions, is_divided=options.shares is not None)
        except UsageError:
            remove_folder(folder)  # nothing to resume from
            raise
        return plan

    def _write(self, store: str, folder: str, plan: Plan, options: ReadOptions) -> PrepareReport:
        """Writes all of a store, its metadata last."""
        splits, tokenizer = plan.splits, self.tokenizer
        tokenizer.save(f"{store}/tokenizer")
        data_type = id_type(tokenizer.padded_vocab_size)
        for split, counts in splits.items():
            create_array(f"{store}/{split}/tokens", data_type, counts["num_tokens"])
            create_array(f"{store}/{split}/document_starts", "int64", counts["num_documents"])
        writing = WritingArrays(folder, store, self.fractions, tokenizer.padded_vocab_size)
        counts = self.runner.total(plan.parts(), writing, folder)
        num_tokens = sum(counts["num_tokens"] for counts in splits.values())
        report = PrepareReport(
            documents=sum(counts["num_documents"] for counts in splits.values()),
            tokens=num_tokens,
            text_bytes=plan.text_bytes,
            bytes_per_token=plan.text_bytes / num_tokens,
            splits=splits,
            split_by=DOCUMENTS if options.shares is None else STRETCHES,
            duplicates=plan.duplicates,
            incidents=plan.stats,
            length_counts=length_counts(plan.length_counts),
            frequent_tokens=frequent_tokens(counts, tokenizer),
            sources=self.sources,
            validation_fraction=self.fractions.validation,
            test_fraction=self.fractions.test,
            filter=self.filter,
        )
        content = json.dumps(dataclasses.asdict(report), indent=2) + "\n"
        write_file(f"{store}/{REPORT_FILE}", content.encode())
        write_file(f"{store}/{PICTURE_FILE}", draw_report(report))
        write_metadata(store, tokenizer, splits, self.sources)
        return report


def _checked_sources(sources: Iterable[str | os.PathLike[str]]) -> list[str]:
    """The sources as text.

    Raises:
      UsageError: one of them is empty.
    """
    texts = [str(source) for source in sources]
    if not all(text.strip() for text in texts):
        raise UsageError("a SOURCE is empty; expected a path, URL or data set")
    return texts


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
