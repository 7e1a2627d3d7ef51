"""Batches -> scores of choices, by a network with or without heads and prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from glm_jax.finetune.heads import ClassificationHead, pooled_positions
from glm_jax.finetune.prompts import PromptEncoder
from glm_jax.finetune.scores import (
    answer_scores,
    penalized,
    sums_by_choice,
    verbalizer_scores,
)
from glm_jax.finetune.segments import choice_scores
from glm_jax.model.attention.mask import answers_mask
from glm_jax.model.embeddings import Prompts, unembed
from glm_jax.model.self_attention import take_positions
from glm_jax.parallel.collectives import (
    copy_to_tensor_parallel,
    gather_from_tensor_parallel,
    local_offset,
    scatter_to_tensor_parallel,
)
from glm_jax.parallel.layout import BATCH_AXES
from glm_jax.train.loss import token_losses

Batch = Mapping[str, Array]
ScoreFunction = Callable[[PyTree, Batch, Key[Array, ""] | None], Float[Array, "B C"]]


@dataclass(frozen=True)
class Scorer:
    """Scores of the choices of one device's examples: (params, batch, dropout key) -> [B, C].

    Attributes:
      model: the network.
      answer_length: where answers are scored: the most tokens that one has. 0: verbalizers are
        compared at the first position of Part B.
      length_penalty: as in `answer_scores`.
      normalized: as in `verbalizer_scores`.
      head: classifies instead; its parameters are under "classification_head".
      pool: what the head sees, see `pooled_positions`.
      prompts: continuous prompts; their parameters are under "prompt_encoder".
      last_layer_at_targets: computes the last layer for the positions that scores depend on only,
        which copies the parameters of the others, see `GLM.hidden_states`.
    """

    model: Any
    answer_length: int = 0
    length_penalty: float = 0.0
    normalized: bool = False
    head: ClassificationHead | None = None
    pool: str = "cls"
    prompts: PromptEncoder | None = None
    last_layer_at_targets: bool = False

    def __call__(
        self, params: PyTree, batch: Batch, dropout_key: Key[Array, ""] | None
    ) -> Float[Array, "B C"]:
        """The scores; without a key there is no dropout.

        With dropout, the answers to one context of a batch of `share_contexts` share what is
        dropped of it, where separate rows would draw it for each.
        """
        tokens = batch["tokens"]
        rows = {name: _rows(batch[name], tokens) for name in _ROW_ARRAYS if name in batch}
        if self.head is not None:
            at = pooled_positions(rows["prefix_length"], rows["tokens"].shape[1], self.pool)
            states = self.hidden_states(params, rows, dropout_key, positions=at[:, None])[:, 0]
            keys = None if dropout_key is None else _row_keys(dropout_key, len(states))
            scores: Any = self.head.apply({"params": params["classification_head"]}, states, keys)
        elif "answer_ids" in batch:
            scores = self._of_shared_contexts(params, batch, rows, dropout_key)
        else:
            scores = self._of_blank(params, rows, dropout_key)
        return choice_scores(jnp.reshape(scores, (tokens.shape[0], -1)), batch)

    def hidden_states(
        self,
        params: PyTree,
        rows: Batch,
        dropout_key: Key[Array, ""] | None,
        attention_mask: Bool[Array, "B 1 Q L"] | None = None,
        positions: Int[Array, "B T"] | None = None,
    ) -> Float[Array, "B L D"] | Float[Array, "B T D"]:
        """Hidden states of rows without an axis of choices; prompts are in rows that have them."""
        at_targets = positions is not None and self.last_layer_at_targets
        hidden = self.model.apply(
            {"params": params},
            *(rows["tokens"], rows["position_ids"], rows["prefix_length"]),
            deterministic=dropout_key is None,
            rngs=None if dropout_key is None else {"dropout": dropout_key},
            attention_mask=attention_mask,
            prompts=self._prompts(params, rows),
            positions=positions if at_targets else None,
            method="hidden_states",
        )
        return hidden if positions is None or at_targets else take_positions(hidden, positions)

    def _prompts(self, params: PyTree, rows: Batch) -> Prompts | None:
        if self.prompts is None or "prompt_ids" not in rows:
            return None
        embeddings: Any = self.prompts.apply({"params": params["prompt_encoder"]})
        # Tensor-parallel devices embed different positions.
        return Prompts(rows["prompt_ids"], copy_to_tensor_parallel(embeddings))

    def _of_shared_contexts(
        self, params: PyTree, batch: Batch, rows: Batch, dropout_key: Key[Array, ""] | None
    ) -> Float[Array, "B C"]:
        """Scores of a batch of `share_contexts`."""
        room = batch["answer_ids"].shape[-1]
        num_context = batch["tokens"].shape[-1] - room
        mask = answers_mask(rows["context_length"], rows["answer_ids"], num_context)
        hidden = self.hidden_states(params, rows, dropout_key, mask)[:, -room:]
        table = self.model.apply({"params": params}, method="embedding_table")
        positions, targets = _shares(hidden.reshape(-1, hidden.shape[-1]), rows["targets"].ravel())
        log_probs = -token_losses(unembed(positions, table), targets)
        log_probs = gather_from_tensor_parallel(log_probs, 0).reshape(batch["loss_mask"].shape)
        sums, counts = (
            sums_by_choice(values, batch["answer_ids"], batch["choice_mask"].shape[-1])
            for values in (log_probs * batch["loss_mask"], batch["loss_mask"])
        )
        return penalized(sums, counts[..., None], self.length_penalty)

    def _of_blank(
        self, params: PyTree, rows: Batch, dropout_key: Key[Array, ""] | None
    ) -> Float[Array, "..."]:
        """Scores of what is in the blank; logits are computed for its positions only."""
        length = rows["tokens"].shape[1]
        start = rows["prefix_length"][:, None]
        index = start + jnp.arange(max(self.answer_length, 1))
        # Where the row ends before the answer's space does, its last position is there again.
        inside = index < length
        index = jnp.minimum(index, length - 1)
        part_b = self.hidden_states(params, rows, dropout_key, positions=index)
        table = self.model.apply({"params": params}, method="embedding_table")
        if not self.answer_length:
            part_b, targets = _shares(part_b, rows["targets"])
            logits = unembed(part_b, table)[:, 0]
            scores = verbalizer_scores(logits, targets, normalized=self.normalized)
        else:
            targets, mask = (
                jnp.take_along_axis(rows[name], index, axis=1) for name in ("targets", "loss_mask")
            )
            part_b, targets, mask = _shares(part_b, targets, mask * inside)
            logits = unembed(part_b, table)
            scores = answer_scores(logits, targets, mask, length_penalty=self.length_penalty)
        return gather_from_tensor_parallel(scores, 0)


_ROW_ARRAYS = (
    *("tokens", "position_ids", "prefix_length", "targets", "loss_mask"),
    *("prompt_ids", "context_length", "answer_ids"),
)


def _row_keys(dropout_key: Key[Array, ""], rows: int) -> Key[Array, "rows"]:
    """A key for each row of the global batch that this device has."""
    # The network draws from the key itself.
    key = jax.random.fold_in(dropout_key, 1)
    numbers = local_offset(BATCH_AXES, rows) + jnp.arange(rows)
    return jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)


def _shares(*values: Array) -> list[Array]:
    """The rows of a tensor-parallel device: each computes the logits of its own."""
    return [scatter_to_tensor_parallel(value, 0) for value in values]


def _rows(values: Array, tokens: Array) -> Array:
    """[B, C, ...] -> [B C, ...] where tokens have choices; arrays of examples stay."""
    if tokens.ndim == 2:
        return values
    return values.reshape(-1, *values.shape[2:])
