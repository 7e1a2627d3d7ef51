"""From token stores on disk to global batches on the mesh."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from jax.sharding import Mesh

from glm_jax.data.batches.pipeline import Prefetched, batches
from glm_jax.data.batches.position import DataPosition, first_position
from glm_jax.data.batches.rows import MixedIn, RowMaker, RowSource
from glm_jax.data.batches.supervised import read_supervised
from glm_jax.data.batches.task_mixture import open_tasks
from glm_jax.data.blanks.config import BlankConfig
from glm_jax.data.config import DataConfig
from glm_jax.data.order.documents import DocumentTexts
from glm_jax.data.order.epochs import EpochOrder, EpochTexts
from glm_jax.data.order.mixture import MixedTexts
from glm_jax.data.order.texts import TextSource
from glm_jax.data.store.store import TokenStore, open_store
from glm_jax.errors import UsageError
from glm_jax.parallel.batches import Batch, process_rows, to_devices
from glm_jax.tokenizer import Tokenizer, load_tokenizer

BATCHES_AHEAD = 2  # on the devices, in addition to the one in use


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Token stores with their tokenizer, read as batches of blanks.

    Attributes:
      stores: the stores.
      tokenizer: of all of them.
      data: the shape of batches.
      blanks: how blanks are sampled in training.
      held_out_blanks: and in all other splits.
      position: where training starts or resumes.
      opened: what has been opened so far, by what it is.
    """

    stores: Sequence[TokenStore]
    tokenizer: Tokenizer
    data: DataConfig
    blanks: BlankConfig
    held_out_blanks: BlankConfig
    position: DataPosition
    opened: dict[Hashable, Any] = dataclasses.field(default_factory=dict, repr=False)

    def num_tokens(self, split: str) -> int:
        """Tokens of a split over all stores."""
        return sum(store.split(split).num_tokens for store in self.stores)

    def open(self, *splits: str) -> None:
        """Opens splits, and the supervised examples of training, before they are read.

        Raises:
          UsageError: a store has no such split, a split is shorter than a sequence, sequences are
            too short, the tokenizer lacks a token, or the supervised examples can't be used.
          RunError: a store's files are damaged.
        """
        for split in splits:
            self._row_maker(split)

    def at(self, position: DataPosition) -> Inputs:
        """The same inputs, whose training examples continue at another position."""
        return dataclasses.replace(self, position=position)

    def read(self, split: str, mesh: Mesh, *, num_steps: int | None = None) -> Iterator[Batch]:
        """Global batches of a split; this process makes only the rows that its devices hold.

        Those of "train" start at the position, those of any other split at its first example.
        """
        rows = process_rows(mesh, self.data.batch_size)
        first_example = self.position.example if split == "train" else 0
        local = self._read(split, rows, first_example, num_steps)
        return Prefetched(to_devices(local, mesh, self.data.batch_size), BATCHES_AHEAD)

    def read_rows(self, split: str, step: int, rows: Sequence[int]) -> dict[str, np.ndarray]:
        """Some rows of one step's batch, on the host, all steps having the same batch size."""
        return next(self._read(split, rows, step * self.data.batch_size, 1))

    def _read(
        self, split: str, rows: Sequence[int], first_example: int, num_steps: int | None
    ) -> Iterator[dict[str, np.ndarray]]:
        return batches(
            self._row_maker(split),
            batch_size=self.data.batch_size,
            first_example=first_example,
            num_steps=num_steps,
            rows=rows,
            threads=data_threads(),
        )

    def _row_maker(self, split: str) -> RowMaker:
        return RowMaker(
            self._texts(split),
            self._blanks_of(split),
            self.tokenizer.special,
            self.tokenizer.sentence_end,
            self.data.sequence_length,
            self.data.seed,
            self._supervised() if split == "train" else None,
        )

    def _blanks_of(self, split: str) -> BlankConfig:
        return self.blanks if split == "train" else self.held_out_blanks

    def _supervised(self) -> MixedIn | None:
        if not self.data.supervised_share:
            return None
        source: RowSource = self._opened("supervised", self._open_supervised)
        position = self.position
        return MixedIn(
            source, self.data.supervised_share, position.start, position.supervised_before
        )

    def _open_supervised(self) -> RowSource:
        data = self.data
        if data.supervised:
            return read_supervised(
                data.supervised,
                self.tokenizer,
                sequence_length=data.sequence_length,
                seed=data.seed,
            )
        return open_tasks(
            data.tasks,
            data.task_weights,
            self.tokenizer,
            sequence_length=data.sequence_length,
            seed=data.seed,
            block_positions=self.blanks.block_positions,
        )

    def _texts(self, split: str) -> TextSource:
        """Texts of all stores; every one is shuffled by its own seed."""
        # Held-out texts are the same ones whatever has been trained on.
        position = self.position if split == "train" else self.position.restarted()
        sources: list[TextSource] = [
            self._opened(
                (split, store.path, mixed.number),
                partial(self._texts_of, store, split, self.data.seed + mixed.number),
            )
            for store, mixed in zip(self.stores, position.mixed, strict=True)
        ]
        before = [store.before for store in position.mixed]
        if len(sources) == 1 and before[0] == position.texts_before:
            return sources[0]
        weights = [store.weight for store in position.mixed]
        return MixedTexts(sources, weights, start=position.texts_before, before=before)

    def _opened(self, name: Hashable, open_it: Callable[[], Any]) -> Any:
        if name not in self.opened:
            self.opened[name] = open_it()
        return self.opened[name]

    def _texts_of(self, store: TokenStore, split_name: str, seed: int) -> TextSource:
        split = store.split(split_name)
        special, length = self.tokenizer.special, self.data.sequence_length
        blanks = self._blanks_of(split_name)
        try:
            if self.data.order == "epochs":
                order = EpochOrder(split.num_tokens, blanks, sequence_length=length, seed=seed)
                return EpochTexts(split, order, enc=special["ENC"])
            return DocumentTexts(
                split,
                blanks,
                enc=special["ENC"],
                sentence_end=self.tokenizer.sentence_end,
                sequence_length=length,
                seed=seed,
            )
        except UsageError as error:
            raise UsageError(f"split {split_name} of the store {store.path}: {error}") from error


def data_threads() -> int:
    """Threads that prepare batches: a quarter of the cores, as many as a step can ever need."""
    return min(max((os.cpu_count() or 1) // 4, 1), 8)


def open_inputs(
    data: DataConfig,
    blanks: BlankConfig,
    vocab_size: int,
    held_out_blanks: BlankConfig | None = None,
) -> Inputs:
    """Opens the configured stores for a model with `vocab_size` rows in its word embedding.

    Args:
      data: the stores, and the shape of batches.
      blanks: how blanks are sampled.
      vocab_size: rows of the word embedding.
      held_out_blanks: how they are sampled in other splits than "train", if not in the same way.

    Raises:
      UsageError: no store there, its tokenizer is another one than it was written with or than
        that of the other stores, or its vocabulary is larger than the model's.
    """
    stores = [open_store(path) for path in data.store_weights]
    first = stores[0].metadata
    for store in stores:
        if store.metadata.tokenizer_fingerprint != first.tokenizer_fingerprint:
            raise UsageError(
                f"the stores {stores[0].path} and {store.path} were built with different "
                f"tokenizers, {first.tokenizer_fingerprint[:12]} and "
                f"{store.metadata.tokenizer_fingerprint[:12]}; stores that are mixed need the same"
            )
    tokenizer = load_tokenizer(f"{data.main_store}/tokenizer")
    if tokenizer.fingerprint != first.tokenizer_fingerprint:
        raise UsageError(
            f"the store {data.main_store} was built with the tokenizer "
            f"{first.tokenizer_fingerprint[:12]}, but its folder holds another one, "
            f"{tokenizer.fingerprint[:12]}"
        )
    if first.vocab_size > vocab_size:
        raise UsageError(
            f"the store {data.main_store} has a vocabulary of {first.vocab_size} tokens, more "
            f"than model.vocab_size = {vocab_size}"
        )
    position = first_position(stores, data)
    return Inputs(stores, tokenizer, data, blanks, held_out_blanks or blanks, position)
