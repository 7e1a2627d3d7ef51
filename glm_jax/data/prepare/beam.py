"""Preparing a corpus on Apache Beam: any of its runners, from one machine to a cluster.

It has its own environment (requirements-beam.txt), as Beam's pins and those of the rest of
the package don't go together; nothing here imports TensorFlow or JAX.
"""

from __future__ import annotations

import io
import json
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam  # pyright: ignore[reportMissingImports]
import numpy as np
from apache_beam.options.pipeline_options import (  # pyright: ignore[reportMissingImports]
    PipelineOptions,
)

from glm_jax.data.prepare.runner import NumberedShard, numbered_shards
from glm_jax.data.sources.document import ReadOptions
from glm_jax.data.sources.inputs import Input
from glm_jax.errors import RunError, UsageError
from glm_jax.io.files import read_file, write_file


@dataclass(frozen=True)
class Failure:
    """The error of one piece of work, reported when the pipeline is done."""

    sentence: str
    is_usage: bool

    def error(self) -> UsageError | RunError:
        """The error to raise."""
        return UsageError(self.sentence) if self.is_usage else RunError(self.sentence)


@dataclass(frozen=True)
class BeamRunner:
    """A Beam runner by its name, with its own options as on a command line."""

    runner: str
    options: str = ""

    def shards(
        self,
        inputs: list[Input],
        options: ReadOptions,
        work: Callable[[NumberedShard], tuple[int, int]],
        folder: str,
    ) -> Iterator[tuple[str, int, int]]:
        location = f"{folder}/shards.json"
        with self._pipeline() as pipeline:
            _ = (
                pipeline
                | "inputs" >> beam.Create(list(enumerate(inputs)))
                | "spread inputs" >> beam.Reshuffle()
                | "shards" >> beam.FlatMap(_shards, options)
                | "spread shards" >> beam.Reshuffle()
                | "tokenize" >> beam.Map(_tokenize, work)
                | "collect" >> beam.CombineGlobally(beam.combiners.ToListCombineFn())
                | "write" >> beam.Map(_write_list, location)
            )
        yield from sorted(_read_list(location))

    def total(
        self, items: Iterable[Any], work: Callable[[Any], np.ndarray], folder: str
    ) -> np.ndarray:
        location = f"{folder}/total.npz"
        with self._pipeline() as pipeline:
            _ = (
                pipeline
                | "items" >> beam.Create(list(items))
                | "spread" >> beam.Reshuffle()
                | "work" >> beam.Map(_attempt, work)
                | "add up" >> beam.CombineGlobally(_Sum())
                | "write" >> beam.Map(_write_total, location)
            )
        with np.load(io.BytesIO(read_file(location))) as found:
            _raise_first([Failure(**failure) for failure in json.loads(str(found["failures"]))])
            return found["total"]

    def _pipeline(self) -> Any:
        try:
            options = PipelineOptions(shlex.split(self.options), runner=self.runner)
            return beam.Pipeline(options=options)
        except ValueError as error:
            raise UsageError(
                f"Apache Beam has no runner {self.runner!r} with options {self.options!r}: "
                + " ".join(str(error).split())
            ) from error


class _Sum(beam.CombineFn):
    """Adds up arrays, and gathers the first few failures."""

    def create_accumulator(self) -> tuple[Any, list[Failure]]:
        return np.zeros((), np.int64), []

    def add_input(self, accumulator, element):
        total, failures = accumulator
        if isinstance(element, Failure):
            return total, [*failures, element][:8]
        return total + element, failures

    def merge_accumulators(self, accumulators):
        totals, failures = zip(*accumulators, strict=True)
        return sum(totals), [failure for some in failures for failure in some][:8]

    def extract_output(self, accumulator):
        return accumulator


def _shards(input: tuple[int, Input], options: ReadOptions) -> Iterator[NumberedShard | Failure]:
    try:
        yield from numbered_shards(*input, options)
    except UsageError as error:
        yield Failure(str(error), is_usage=True)


def _tokenize(
    shard: NumberedShard | Failure, work: Callable[[NumberedShard], tuple[int, int]]
) -> tuple[str, int, int] | Failure:
    if isinstance(shard, Failure):
        return shard
    done = _attempt(shard, work)
    return done if isinstance(done, Failure) else (shard[0], *done)


def _attempt(item: Any, work: Callable[[Any], Any]) -> Any:
    """The work's result, or its failure: an exception would make a runner try again in vain."""
    try:
        return work(item)
    except UsageError as error:
        return Failure(str(error), is_usage=True)
    except RunError as error:
        return Failure(str(error), is_usage=False)


def _write_list(results: list[Any], location: str) -> None:
    done = [result for result in results if not isinstance(result, Failure)]
    failures = [vars(result) for result in results if isinstance(result, Failure)]
    write_file(location, json.dumps({"done": done, "failures": failures}).encode())


def _read_list(location: str) -> list[tuple[str, int, int]]:
    found = json.loads(read_file(location))
    _raise_first([Failure(**failure) for failure in found["failures"]])
    return [(name, documents, num_bytes) for name, documents, num_bytes in found["done"]]


def _write_total(result: tuple[np.ndarray, list[Failure]], location: str) -> None:
    total, failures = result
    content = io.BytesIO()
    np.savez(content, total=total, failures=json.dumps([vars(failure) for failure in failures]))
    write_file(location, content.getvalue())


def _raise_first(failures: list[Failure]) -> None:
    if failures:
        raise min(failures, key=lambda failure: failure.sentence).error()
