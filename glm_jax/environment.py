"""Settings of libraries that only count before these are first imported or set up."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

PCI_DEVICES = Path("/sys/bus/pci/devices")
GOOGLE = "0x1ae0"  # the vendor number of TPU chips

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


def keep_memory_between_steps() -> None:
    """Lets steps on a CPU reuse the memory of the steps before them; for processes that train.

    XLA allocates a step's intermediate arrays, gigabytes of them, in every step, and the C library
    returns them to the system after it: mapping and clearing their pages again takes a tenth of the
    processor time of a step of GLM-Base. Here freed memory stays with the process, in the one heap
    of its main thread, in which steps run then. The main thread waits for them therefore; batches
    are made in other threads.

    It counts before JAX has set up its devices, and does nothing where these are no CPUs or the
    C library is not glibc.
    """
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)
    if not sys.platform.startswith("linux") or jax.default_backend() != "cpu":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library, such as musl
        return
    mallopt(M_MMAP_MAX, 0)  # all from the heap
    mallopt(M_TRIM_THRESHOLD, -1)  # whose end is never returned


def _has_tpu() -> bool:
    """Whether this machine has TPU chips, as JAX itself finds out."""
    try:
        return any(path.read_text().strip() == GOOGLE for path in PCI_DEVICES.glob("*/vendor"))
    except OSError:
        return False
