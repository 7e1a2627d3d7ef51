"""Held-out loss and accuracy per objective, with the entropy of the targets as a baseline."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from glm_jax import validation
from glm_jax.data.blanks.config import MIXED_OBJECTIVES, BlankConfig, Objective
from glm_jax.errors import RunError, UsageError
from glm_jax.model.embeddings import unembed
from glm_jax.parallel.batches import micro_batches
from glm_jax.parallel.collectives import scatter_to_tensor_parallel
from glm_jax.train.loss import in_chunks, objective_sums, token_losses

OBJECTIVES = tuple(objective.label for objective in Objective)


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """When and on how much held-out data a run is evaluated.

    Attributes:
      every: steps between evaluations; the last step is always evaluated.
      num_batches: batches of the validation split per evaluation.
      fill_examples: held-out sentences that are shown at the end of a run, with guesses of words.
      proportions: those in which the objectives are mixed, by name; where there are none, those of
        training. Losses of runs that are trained on other mixtures can be compared so.
    """

    every: int = 1000
    num_batches: int = 50
    fill_examples: int = 3
    proportions: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        validation.at_least("evaluation", self, 1, "every", "num_batches")
        validation.at_least("evaluation", self, 0, "fill_examples")
        known = [kind.label for kind in MIXED_OBJECTIVES]
        for name, proportion in self.proportions.items():
            if name not in known or not 0 <= proportion < math.inf:
                raise UsageError(
                    f"evaluation.proportions gives {name} {proportion}; expected at least 0 for "
                    f"each of {', '.join(known)}"
                )
        if self.proportions and not any(self.proportions.values()):
            raise UsageError("evaluation.proportions are all 0; expected one above 0")

    def blanks(self, training: BlankConfig) -> BlankConfig:
        """How blanks are sampled in the evaluation of a run that is trained on these."""
        if not self.proportions:
            return training
        names = [kind.label for kind in MIXED_OBJECTIVES]
        return dataclasses.replace(
            training, **{name: self.proportions.get(name, 0.0) for name in names}
        )


@dataclasses.dataclass(frozen=True)
class Score:
    """Means over the targets of one objective, or of all."""

    loss: float
    accuracy: float
    target_tokens: int


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What one pass over held-out batches found.

    Attributes:
      overall: loss (nats per target) and accuracy over all targets.
      by_objective: the same per objective that occurred.
      unigram_entropy: entropy in nats of the distribution of the evaluated targets: the loss of the
        best prediction without context.
    """

    overall: Score
    by_objective: Mapping[str, Score]
    unigram_entropy: float

    def metrics(self) -> dict[str, float]:
        """Flat names for the metrics file."""
        named = {"loss": self.overall.loss, "accuracy": self.overall.accuracy}
        for name, score in self.by_objective.items():
            named |= {f"loss_{name}": score.loss, f"accuracy_{name}": score.accuracy}
        named["unigram_entropy"] = self.unigram_entropy
        return named

    def describe(self) -> str:
        """One sentence for people."""
        parts = [
            f"{name} {score.loss:.3f} (accuracy {score.accuracy:.1%})"
            for name, score in self.by_objective.items()
        ]
        return (
            f"loss {self.overall.loss:.3f} nats per target "
            f"(accuracy {self.overall.accuracy:.1%}): {', '.join(parts)}; "
            f"{distance(self.overall.loss, self.unigram_entropy)} the targets' unigram entropy "
            f"{self.unigram_entropy:.3f}"
        )


def distance(loss: float, unigram_entropy: float) -> str:
    """How far a loss is from the unigram entropy of its targets, in words: "0.860 below"."""
    direction = "below" if loss <= unigram_entropy else "above"
    return f"{abs(loss - unigram_entropy):.3f} {direction}"


Sums = dict[str, Float[Array, "..."]]


def make_evaluation_step(
    model, *, num_micro_batches: int = 1, loss_chunks: int = 1
) -> Callable[[PyTree, Mapping[str, Array]], Sums]:
    """Builds (params, batch) -> sums per objective and counts per target id.

    Inside `jax.shard_map` these are the sums over one device's shard of the batch. Micro-batches,
    and chunks of their positions, are taken one after another.
    """

    def row_sums(embedding_table: Array, rows: tuple[Array, ...]) -> Sums:
        hidden, targets, mask, objective = rows
        logits = unembed(hidden, embedding_table)
        correct = (jnp.argmax(logits, axis=-1) == targets).astype(jnp.float32)
        per_token = {
            "loss": token_losses(logits, targets) * mask,
            "correct": correct * mask,
            "targets": mask,
        }
        sums = {
            name: objective_sums(values, objective, len(OBJECTIVES))
            for name, values in per_token.items()
        }
        return sums | {"target_counts": jnp.zeros(len(embedding_table)).at[targets].add(mask)}

    def batch_sums(params: PyTree, batch: Mapping[str, Array]) -> Sums:
        variables = {"params": params}
        positions = (batch["tokens"], batch["position_ids"], batch["prefix_length"])
        hidden = model.apply(variables, *positions, method="hidden_states")
        objective = jnp.broadcast_to(batch["objective"][:, None], batch["targets"].shape)
        rows = tuple(
            scatter_to_tensor_parallel(values.reshape(-1, *values.shape[2:]), 0)
            for values in (hidden, batch["targets"], batch["loss_mask"], objective)
        )
        embedding_table = model.apply(variables, method="embedding_table")
        return _map_and_sum(
            lambda chunk: row_sums(embedding_table, chunk), in_chunks(rows, loss_chunks)
        )

    def evaluation_step(params: PyTree, batch: Mapping[str, Array]) -> Sums:
        return _map_and_sum(
            lambda micro: batch_sums(params, micro), micro_batches(batch, num_micro_batches)
        )

    return evaluation_step


def _map_and_sum(sums: Callable[[PyTree], Sums], parts: PyTree) -> Sums:
    """The sum of `sums` over the first axis of all arrays, one after another."""
    return jax.tree.map(lambda values: jnp.sum(values, axis=0), jax.lax.map(sums, parts))


def evaluate(
    evaluation_step: Callable[[PyTree, Mapping[str, Array]], Sums],
    params: PyTree,
    batches: Iterable[Mapping[str, Array]],
) -> Evaluation:
    """Adds up the (compiled) evaluation step over the batches.

    Raises:
      RunError: no batch held a target.
    """
    total: dict[str, np.ndarray] = {}
    for batch in batches:
        for name, values in jax.device_get(evaluation_step(params, batch)).items():
            total[name] = total.get(name, 0.0) + np.asarray(values, np.float64)
    if not total or not total["targets"].sum():
        raise RunError("the evaluation had no target token: no batch, or none with a blank")

    def score(rows) -> Score:
        targets = total["targets"][rows].sum()
        return Score(
            loss=float(total["loss"][rows].sum() / targets),
            accuracy=float(total["correct"][rows].sum() / targets),
            target_tokens=int(targets),
        )

    occurring = [row for row, count in enumerate(total["targets"]) if count]
    return Evaluation(
        overall=score(slice(None)),
        by_objective={OBJECTIVES[row]: score([row]) for row in occurring},
        unigram_entropy=entropy(total["target_counts"]),
    )


def entropy(counts: Float[np.ndarray, "V"]) -> float:
    """Entropy in nats of the distribution that the counts make."""
    shares = counts[counts > 0] / counts.sum()
    return float(-np.sum(shares * np.log(shares)))
