"""Two networks on the same inputs, station by station."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float

from glm_jax.convert.quantize import ExpandedSource
from glm_jax.convert.weights import WeightSource
from glm_jax.parity.engines import Stations

Read = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Difference:
    """How far two networks are apart at one station.

    Attributes:
      station: "embedding", "layer 0" and so on, "final layernorm" or "logits".
      max_absolute: the largest absolute difference; infinite where either is not a number.
      largest_value: the largest absolute value of the first network there.
      kl_per_token: mean over all positions of the Kullback-Leibler divergence in nats, from the
        first network's distribution over next tokens to the second's. Before the logits the
        distributions are those that the stream would give if it ended there.
      top1_agreement: share of the positions where both predict the same token.
    """

    station: str
    max_absolute: float
    largest_value: float
    kl_per_token: float
    top1_agreement: float


def layer_station(layer: int) -> str:
    """What the output of a layer is called; layers are counted from 0, as their tensors are."""
    return f"layer {layer}"


def compare_stations(first: Stations, second: Stations, read: Read) -> list[Difference]:
    """Every station in the order of the pass, the logits last.

    Args:
      first, second: what the networks gave for the same inputs.
      read: makes logits of a stream, as `stream_reader` does.
    """
    differences = []
    names = ["embedding", *(layer_station(layer) for layer in range(len(first.stream) - 1))]
    for name, *streams in zip(names, first.stream, second.stream, strict=True):
        differences.append(_difference(name, *streams, *map(read, streams)))
    logits = first.logits, second.logits
    differences.append(_difference("final layernorm", first.hidden, second.hidden, *logits))
    differences.append(_difference("logits", *logits, *logits))
    return differences


def stream_reader(source: WeightSource, layernorm_epsilon: float) -> Read:
    """Reads a stream out as if it ended there: final LayerNorm, then the word embedding.

    Both networks are read with the same weights, so that what is seen is the stream's difference.
    """
    expanded = ExpandedSource(source, np.dtype(np.float32), only_words=True)
    embedding_table = expanded.read("word_embeddings.weight").astype(np.float32)
    scale = source.read("transformer.final_layernorm.weight").astype(np.float32)
    bias = source.read("transformer.final_layernorm.bias").astype(np.float32)

    def read(stream: Float[np.ndarray, "B L D"]) -> Float[np.ndarray, "B L V"]:
        centred = stream - stream.mean(axis=-1, keepdims=True)
        deviation = np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + layernorm_epsilon)
        return (centred / deviation * scale + bias) @ embedding_table.T

    return read


def first_beyond(differences: list[Difference], tolerance: float) -> Difference | None:
    """The first station whose largest difference is beyond the tolerance."""
    return next((each for each in differences if not each.max_absolute <= tolerance), None)


def _difference(
    station: str,
    first: np.ndarray,
    second: np.ndarray,
    first_logits: Float[np.ndarray, "B L V"],
    second_logits: Float[np.ndarray, "B L V"],
) -> Difference:
    kl, agreement = [], []
    # Values that are not finite are reported, so NumPy need not warn as well.
    with np.errstate(invalid="ignore", over="ignore"):
        largest = float(np.abs(first - second).max())
        for one, other in _rows(first_logits, second_logits):
            log_p, log_q = _log_softmax(one), _log_softmax(other)
            kl.append(np.sum(np.exp(log_p) * (log_p - log_q), axis=-1))
            # argmax chooses a NaN, which is no prediction to agree in.
            numbers = ~(np.isnan(one).any(axis=-1) | np.isnan(other).any(axis=-1))
            agreement.append(numbers & (one.argmax(axis=-1) == other.argmax(axis=-1)))
    return Difference(
        station=station,
        max_absolute=largest if np.isfinite(largest) else float("inf"),
        largest_value=float(np.abs(first).max()),
        # Rounding may take a divergence of 0 below it; unlike max(), this keeps NaN wherever it is.
        kl_per_token=float(np.maximum(np.mean(kl), 0.0)),
        top1_agreement=float(np.mean(agreement)),
    )


def _rows(*logits: Float[np.ndarray, "B L V"]) -> Iterator[tuple[np.ndarray, ...]]:
    """One example at a time in float64, as the full batch might not fit into memory."""
    for rows in zip(*logits, strict=True):
        yield tuple(row.astype(np.float64) for row in rows)


def _log_softmax(logits: Float[np.ndarray, "L V"]) -> Float[np.ndarray, "L V"]:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))
