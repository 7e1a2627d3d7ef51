"""Where a run is in its data, and where it continues when the data are others.

Examples are counted, not steps: a batch of another size continues with the next example. Every
store, and the supervised examples, have a count of their own, so that other shares of a mixture
neither repeat nor leave out what a stream holds.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from glm_jax.data.config import DataConfig
from glm_jax.data.order.shares import num_assigned
from glm_jax.data.store.store import TokenStore
from glm_jax.io.paths import resolve_path


@dataclasses.dataclass(frozen=True)
class StorePosition:
    """One store of a mixture.

    Attributes:
      path: where it is.
      content: identifies what it holds, wherever it is; "" where that was not recorded.
      number: is added to the data seed, so that every store has an order of its own.
      weight: its part of the mixture; 0 for a store that is no longer mixed in.
      before: examples that were taken from it before the mixture's first.
    """

    path: str
    content: str
    number: int
    weight: float
    before: int = 0


@dataclasses.dataclass(frozen=True)
class DataPosition:
    """The next example of a run, and what the example before and after it are made from.

    Attributes:
      example: index of the next example.
      start: index of the first example that is mixed from these streams in these shares.
      stores: those that are mixed, in order, then those that were.
      supervised_share: the part of supervised examples.
      supervised_before: supervised examples before `start`.
    """

    example: int
    start: int
    stores: tuple[StorePosition, ...]
    supervised_share: float = 0.0
    supervised_before: int = 0

    @property
    def mixed(self) -> tuple[StorePosition, ...]:
        """The stores that are mixed."""
        return tuple(store for store in self.stores if store.weight > 0)

    @property
    def texts_before(self) -> int:
        """Examples before `start` that were made from texts of the stores."""
        return self.start - self.supervised_before

    def advanced(self, num_examples: int) -> DataPosition:
        """The position after some more examples."""
        return dataclasses.replace(self, example=self.example + num_examples)

    def restarted(self) -> DataPosition:
        """The first position of the same mixture, with the same orders."""
        stores = tuple(dataclasses.replace(store, before=0) for store in self.mixed)
        return DataPosition(0, 0, stores)

    def remixed(
        self, stores: Sequence[StorePosition], others: Sequence[StorePosition], share: float
    ) -> DataPosition:
        """The same position in another mixture, which starts here.

        Args:
          stores: of the new mixture; their counts are those of `counted`.
          others: stores that are mixed in no longer.
          share: the part of supervised examples.
        """
        return DataPosition(
            example=self.example,
            start=self.example,
            stores=(*stores, *(dataclasses.replace(store, weight=0.0) for store in others)),
            supervised_share=share,
            supervised_before=self._supervised_count(),
        )

    def counted(self) -> tuple[StorePosition, ...]:
        """The stores, `before` counting the examples up to the next one."""
        texts = self.example - self._supervised_count()
        weights = [store.weight for store in self.mixed]
        more = num_assigned(texts - self.texts_before, weights)
        more += [0] * (len(self.stores) - len(more))
        return tuple(
            dataclasses.replace(store, before=store.before + number)
            for store, number in zip(self.stores, more, strict=True)
        )

    def _supervised_count(self) -> int:
        if not self.supervised_share:
            return self.supervised_before
        shares = [1 - self.supervised_share, self.supervised_share]
        return self.supervised_before + num_assigned(self.example - self.start, shares)[1]


def first_position(stores: Sequence[TokenStore], data: DataConfig) -> DataPosition:
    """The position of a new run."""
    weights = data.store_weights.values()
    return DataPosition(
        example=0,
        start=0,
        stores=tuple(
            StorePosition(store.path, content_of(store), number, weight)
            for number, (store, weight) in enumerate(zip(stores, weights, strict=True))
        ),
        supervised_share=data.supervised_share,
    )


def content_of(store: TokenStore) -> str:
    """Identifies what a store holds, from its metadata."""
    metadata = json.dumps(dataclasses.asdict(store.metadata), sort_keys=True)
    return hashlib.sha256(metadata.encode()).hexdigest()[:16]


def recorded_position(record: Mapping[str, Any]) -> DataPosition:
    """The position that was recorded with a checkpoint.

    Older checkpoints recorded none: their runs had one batch size and one mixture.
    """
    if saved := record.get("data_position"):
        stores = tuple(StorePosition(**store) for store in saved["stores"])
        return DataPosition(**{**saved, "stores": stores})
    data = record["configuration"]["data"]
    weights = data.get("stores") or {data["store"]: 1.0}
    return DataPosition(
        example=record["step"] * data["batch_size"],
        start=0,
        stores=tuple(
            StorePosition(str(resolve_path(path)), "", number, weight)
            for number, (path, weight) in enumerate(weights.items())
        ),
        supervised_share=data.get("supervised_share", 0.0),
    )


def same_stores(
    old: Sequence[StorePosition], new: Sequence[StorePosition]
) -> list[StorePosition | None]:
    """For every new store, the old one that it continues: of its content, else at its path.

    Where contents were not recorded, stores also correspond by their number.
    """
    rules: list[Callable[[StorePosition, StorePosition], bool]] = [
        lambda one, other: one.content == other.content and one.path == other.path,
        lambda one, other: one.content == other.content,
        lambda one, other: one.path == other.path,
        lambda one, other: not one.content and one.number == other.number,
    ]
    left = list(old)
    found: list[StorePosition | None] = [None] * len(new)
    for rule in rules:
        for index, store in enumerate(new):
            match = next((one for one in left if rule(one, store)), None)
            if found[index] is None and match is not None:
                found[index] = match
                left.remove(match)
    return found


def continued(saved: DataPosition, new: DataPosition) -> DataPosition:
    """Where a run continues.

    Args:
      saved: where it stood.
      new: where it would start with the data that it has now.
    """
    matches = same_stores(saved.stores, new.stores)
    unchanged = (
        tuple(matches) == saved.mixed
        and [store.weight for store in saved.mixed] == [store.weight for store in new.stores]
        and saved.supervised_share == new.supervised_share
    )
    counted = dict(zip(saved.stores, saved.counted(), strict=True))
    free = max((store.number for store in saved.stores), default=-1) + 1
    stores = []
    for store, match in zip(new.stores, matches, strict=True):
        if match is None:
            stores.append(dataclasses.replace(store, number=free))
            free += 1
            continue
        before = match.before if unchanged else counted[match].before
        stores.append(dataclasses.replace(store, number=match.number, before=before))
    others = [count for store, count in counted.items() if store not in matches]
    if unchanged:
        return dataclasses.replace(saved, stores=(*stores, *others))
    return saved.remixed(stores, others, new.supervised_share)
