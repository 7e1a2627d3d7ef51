"""Settings of libraries that only count before these are first imported or set up."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import hashlib
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PCI_DEVICES = Path("/sys/bus/pci/devices")
GOOGLE = "0x1ae0"  # the vendor number of TPU chips
CPU_INFO = Path("/proc/cpuinfo")
DAYS_KEPT = 30  # of a compiled program
# Less is not worth a file.
MIN_COMPILE_SECONDS = 0.2

# Thresholds of Python's generations of objects.
FEW_COLLECTIONS = (100_000, 50, 50)

# Parameters of glibc's mallopt, see its manual page.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def set_defaults() -> None:
    """Keeps libraries from logging what reads like an error and is none; set variables are kept."""
    # TensorFlow only maps and batches integers here, and would log that it was built for any CPU
    # and that its matrix products may round differently. Its errors are raised as exceptions.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    if not _has_tpu():
        # JAX tries every backend that is installed. libtpu, which `glm-jax compile` needs, would
        # log an error for each of these that it can't find out without a chip.
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
        os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")


def leave_out_keras() -> None:
    """Keeps TensorFlow from importing Keras, which takes seconds, and which nothing here uses.

    TensorFlow imports the Keras of this variable; where that is not installed, none. It is for
    processes that run a command: others may want `tf.keras`.
    """
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")


def collect_garbage_rarely() -> None:
    """Searches for garbage after 100,000 new objects in place of Python's 700.

    Imports and tracing make millions of objects, almost all of which stay. Searching them again and
    again is a fifth of the processor time of both.
    """
    gc.set_threshold(*FEW_COLLECTIONS)


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Searches for no garbage in this block, until `collect_garbage_again`.

    What a run imports and traces before its first step is millions of objects, of which a few
    thousand are garbage. Searching them takes a twentieth of that time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def collect_garbage_again() -> None:
    """Ends `without_garbage_collection` before its block does; nothing outside of one.

    What is there by then stays: it is left out of all later searches, once in a process.
    """
    if gc.isenabled():
        return
    if not gc.get_freeze_count():
        gc.freeze()
    gc.enable()


def keep_memory_between_steps() -> None:
    """Lets steps on a CPU reuse the memory of the steps before them; for processes that train.

    XLA allocates a step's intermediate arrays, gigabytes of them, in every step, and the C library
    returns them to the system after it: mapping and clearing their pages again takes 8% of the
    processor time of a step of GLM-Base. Here freed memory stays with the process, in the one heap
    of its main thread, in which steps run then. The main thread waits for them therefore; batches
    are made in other threads.

    It counts before JAX has set up its devices, and does nothing where these are no CPUs, where a
    run has several processes, or where the C library is not glibc.
    """
    import jax

    if jax.distributed.is_initialized():
        return
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    if not sys.platform.startswith("linux") or jax.default_backend() != "cpu":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library, such as musl
        return
    mallopt(M_MMAP_MAX, 0)  # all from the heap
    mallopt(M_TRIM_THRESHOLD, -1)  # whose end is never returned


def keep_compiled_programs() -> None:
    """Keeps what a command compiles in the user's cache folder, for its next start.

    Where JAX has been given a folder, as by the variable JAX_COMPILATION_CACHE_DIR, it stays; and
    JAX_ENABLE_COMPILATION_CACHE=false turns all of it off. Programs are deleted after 30 days. It
    counts before the first program is compiled.
    """
    import jax

    if jax.config.jax_compilation_cache_dir is not None:
        return
    try:
        folder = program_folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        oldest = time.time() - DAYS_KEPT * 24 * 3600
        for program in folder.iterdir():
            if program.stat().st_mtime < oldest:
                program.unlink(missing_ok=True)
    except (OSError, RuntimeError):  # no home folder, or one that can't be written
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_COMPILE_SECONDS)


def program_folder() -> Path:
    """Where compiled programs are kept, for processors of this machine's kind only."""
    base = os.environ.get("XDG_CACHE_HOME")
    cache = Path(base) if base else Path.home() / ".cache"
    return cache / "glm-jax" / "programs" / _processor()


def _processor() -> str:
    """A name for the kind of processor, whose instructions are in programs for CPUs."""
    try:
        first = CPU_INFO.read_text().partition("\n\n")[0].splitlines()
    except OSError:
        first = [platform.processor()]
    # Without what differs between cores and moments, such as their frequency.
    names = ("vendor_id", "model", "flags", "CPU ", "Features")
    kind = [line for line in first if line.startswith(names)] or first
    digest = hashlib.sha256("\n".join(kind).encode()).hexdigest()[:12]
    return f"{platform.machine()}-{digest}"


def _has_tpu() -> bool:
    """Whether this machine has TPU chips, as JAX itself finds out."""
    try:
        return any(path.read_text().strip() == GOOGLE for path in PCI_DEVICES.glob("*/vendor"))
    except OSError:
        return False
