"""Loss of documents as a picture: by position in the document, and by document."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise

import numpy as np
from etils import epath
from matplotlib.figure import Figure

from glm_jax.io.files import write_file

# Positions are grouped so that a group has a quarter more of them than the one before.
_GROWTH = 1.25
MAX_BARS = 60


def draw_losses(losses: Sequence[np.ndarray], picture: epath.Path) -> None:
    """Draws mean losses with standard errors.

    Args:
      losses: of the scored tokens of every document, in nats.
      picture: a .png file.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    by_position, by_document = figure.subplots(1, 2)
    centers, means, errors = position_groups(losses)
    by_position.errorbar(centers, means, errors, fmt="o-", markersize=3, capsize=2)
    by_position.set(xscale="log", xlabel="position in the document", ylabel="loss (nats per token)")
    of_documents = np.asarray([values.mean() for values in losses])
    if len(of_documents) <= MAX_BARS:
        by_document.bar(range(1, len(of_documents) + 1), of_documents)
        by_document.set(xlabel="document", ylabel="loss (nats per token)")
    else:
        by_document.hist(of_documents, bins=40)
        by_document.set(xlabel="loss of a document (nats per token)", ylabel="documents")
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_file(picture, buffer.getvalue())


def position_groups(losses: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Groups of positions, wider ones further on: their centers, mean losses, standard errors."""
    longest = max(len(values) for values in losses)
    edges = [1]
    while edges[-1] <= longest:
        edges.append(max(edges[-1] + 1, int(edges[-1] * _GROWTH)))
    centers, means, errors = [], [], []
    for start, end in pairwise(edges):
        # The first token of a document has no loss, so index 0 is its second position.
        found = np.concatenate([values[start - 1 : end - 1] for values in losses])
        centers.append((start + min(end, longest + 1) - 1) / 2 + 1)
        means.append(found.mean())
        errors.append(found.std() / np.sqrt(len(found)))
    return np.asarray(centers), np.asarray(means), np.asarray(errors)
