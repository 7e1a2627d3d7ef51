"""Compiles a lowered function with the TPU compiler and analyses the output."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

from glm_jax.compile.costs import Costs, Loops, count_costs
from glm_jax.compile.fusions import Fusion, largest_fusions
from glm_jax.compile.hlo import read_module
from glm_jax.compile.memory import (
    MemoryUse,
    Temporary,
    largest_temporaries,
    read_memory_use,
)
from glm_jax.errors import RunError

OWN_FOLDER = "glm_jax/"
NUM_TEMPORARIES = 12
NUM_FUSIONS = 24
_OUT_OF_MEMORY = re.compile(
    r"Used (?P<used>[\d.]+[KMGT]?) of (?P<available>[\d.]+[KMGT]?) hbm"
    r"|\((?P<needed>[\d.]+[KMGT]?)\) exceeds available HBM \((?P<limit>[\d.]+[KMGT]?)\)"
)


class DoesNotFitError(RunError):
    """The program needs more memory than a chip has."""


@dataclasses.dataclass(frozen=True)
class CompiledProgram:
    """One chip's program.

    Attributes:
      memory: what it needs.
      costs: what it does.
      temporaries: the source lines that use most memory at the peak, largest first.
      fusions: the operations with most estimated cycles.
      compile_seconds, compile_cpu_seconds: how long the compiler took, here, and over all cores.
    """

    memory: MemoryUse
    costs: Costs
    temporaries: tuple[Temporary, ...]
    fusions: tuple[Fusion, ...]
    compile_seconds: float
    compile_cpu_seconds: float


def compile_program(
    lowered: jax.stages.Lowered,
    slice_of: Sequence[int],
    compiler_options: Mapping[str, str | bool | int] | None = None,
    loops: Loops | None = None,
) -> CompiledProgram:
    """Compiles for the devices that the function was lowered for, and analyses the result.

    The text of the program is read from the files that the compiler writes on request: what
    `jax.stages.Compiled.as_text()` returns can't be read on every generation.

    Args:
      lowered: from `jax.jit(...).lower(...)`.
      slice_of: the slice of every device of the mesh, in its order.
      compiler_options: flags of the compiler, such as "xla_enable_async_all_gather".
      loops: as of `count_costs`.

    Raises:
      DoesNotFitError: it needs more memory than a chip has.
      RunError: the compiler fails otherwise.
    """
    with tempfile.TemporaryDirectory(prefix="glm-jax-compile-") as folder:
        options = {**(compiler_options or {}), "xla_dump_to": folder}
        start, cpu_start = time.perf_counter(), time.process_time()
        try:
            with _no_compilation_cache():
                compiled = lowered.compile(compiler_options=options)
        except jax.errors.JaxRuntimeError as error:
            raise _explained(str(error)) from error
        seconds = time.perf_counter() - start
        cpu_seconds = time.process_time() - cpu_start
        text = _written(folder, "after_codegen")
        live_ranges = _written(folder, "after_optimizations-live-range")
    module = read_module(text, OWN_FOLDER)
    return CompiledProgram(
        memory=read_memory_use(compiled.memory_analysis()),
        costs=count_costs(module, slice_of, loops),
        temporaries=largest_temporaries(live_ranges, module, NUM_TEMPORARIES),
        fusions=largest_fusions(module, loops or Loops(), NUM_FUSIONS),
        compile_seconds=seconds,
        compile_cpu_seconds=cpu_seconds,
    )


@contextlib.contextmanager
def _no_compilation_cache() -> Iterator[None]:
    """Keeps programs for absent devices out of JAX's cache, which can't read them back.

    JAX decides once whether it uses the cache, so it is made to decide again before and after.
    """
    enabled = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", enabled)
        compilation_cache.reset_cache()


def _written(folder: str, stage: str) -> str:
    """The largest file of a stage: the function's own, where the compiler made others on its way.

    Raises:
      RunError: there is none.
    """
    files = sorted(Path(folder).glob(f"*.{stage}.txt"), key=lambda path: path.stat().st_size)
    if not files:
        raise RunError(f"the TPU compiler wrote no {stage} text, so its program can't be analysed")
    return files[-1].read_text()


def _explained(message: str) -> RunError:
    """The compiler's complaint in one sentence."""
    if match := _OUT_OF_MEMORY.search(message):
        return DoesNotFitError(
            f"it does not fit: it needs {match['used'] or match['needed']} of memory per chip, "
            f"which has {match['available'] or match['limit']} for programs"
        )
    first_line = next((line for line in message.splitlines() if line.strip()), message)
    return RunError(f"the TPU compiler failed: {first_line.strip()}")
