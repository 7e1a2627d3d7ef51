"""Items made ahead of their use."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Prefetched(Generic[Item], Iterator[Item]):
    """The items of an iterator, made by a thread of its own while earlier ones are in use.

    The thread makes one item after the other and never more than were asked for, so that nothing
    keeps the interpreter from ending.
    """

    def __init__(self, items: Iterator[Item], ahead: int) -> None:
        """Begin at once to make `ahead` >= 1 items."""
        self._items = items
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
        self._made = deque(self._thread.submit(next, items) for _ in range(ahead))

    def __next__(self) -> Item:
        self._made.append(self._thread.submit(next, self._items))
        return self._made.popleft().result()
