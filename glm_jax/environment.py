"""Settings of TensorFlow and the TPU runtime that only count before they are first imported."""

from __future__ import annotations

import os
from pathlib import Path

PCI_DEVICES = Path("/sys/bus/pci/devices")
GOOGLE = "0x1ae0"  # the vendor number of TPU chips


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


def _has_tpu() -> bool:
    """Whether this machine has TPU chips, as JAX itself finds out."""
    try:
        return any(path.read_text().strip() == GOOGLE for path in PCI_DEVICES.glob("*/vendor"))
    except OSError:
        return False
