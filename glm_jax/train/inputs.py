"""From a token store on disk to global batches on the mesh."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from glm_jax.data.objectives import BlankConfig
from glm_jax.data.pipeline import batches
from glm_jax.data.store import TokenStore, open_store
from glm_jax.errors import UsageError
from glm_jax.tokenizer import Tokenizer, load_tokenizer
from glm_jax.train.config import DataConfig
from glm_jax.train.gradients import Batch
from glm_jax.train.program import process_rows, to_devices


@dataclasses.dataclass(frozen=True)
class Inputs:
    """A token store with its tokenizer, read as batches of blanks."""

    store: TokenStore
    tokenizer: Tokenizer
    data: DataConfig
    blanks: BlankConfig

    def read(
        self, split: str, mesh: Mesh, *, first_step: int = 0, num_steps: int | None = None
    ) -> Iterator[Batch]:
        """Global batches of a split; this process makes only the rows that its devices hold."""
        rows = process_rows(mesh, self.data.batch_size)
        local = self._read(split, rows, first_step, num_steps)
        return to_devices(local, mesh, self.data.batch_size)

    def read_rows(self, split: str, step: int, rows: range) -> dict[str, np.ndarray]:
        """Some rows of one step's batch, on the host."""
        return next(self._read(split, rows, step, 1))

    def _read(
        self, split: str, rows: range, first_step: int, num_steps: int | None
    ) -> Iterator[dict[str, np.ndarray]]:
        return iter(
            batches(
                self.store.split(split),
                blanks=self.blanks,
                special=self.tokenizer.special,
                sentence_end=self.tokenizer.sentence_end,
                sequence_length=self.data.sequence_length,
                batch_size=self.data.batch_size,
                seed=self.data.seed,
                start_step=first_step,
                num_steps=num_steps,
                rows=rows,
            )
        )


def open_inputs(data: DataConfig, blanks: BlankConfig, vocab_size: int) -> Inputs:
    """Opens the configured store for a model with `vocab_size` rows in its word embedding.

    Raises:
      UsageError: no store there, its tokenizer is another one than it was written with, or its
        vocabulary is larger than the model's.
    """
    store = open_store(data.store)
    tokenizer = load_tokenizer(str(Path(data.store) / "tokenizer"))
    if tokenizer.fingerprint != store.metadata.tokenizer_fingerprint:
        raise UsageError(
            f"the store {data.store} was built with the tokenizer "
            f"{store.metadata.tokenizer_fingerprint[:12]}, but its folder holds another one, "
            f"{tokenizer.fingerprint[:12]}"
        )
    if store.metadata.vocab_size > vocab_size:
        raise UsageError(
            f"the store {data.store} has a vocabulary of {store.metadata.vocab_size} tokens, more "
            f"than model.vocab_size = {vocab_size}"
        )
    return Inputs(store, tokenizer, data, blanks)
