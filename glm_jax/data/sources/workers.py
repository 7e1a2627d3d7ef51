"""Run a function over a stream in several processes, in order and in bounded memory."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from glm_jax.errors import RunError, UsageError

Item = TypeVar("Item")
Result = TypeVar("Result")

# Enough that a worker finds its next item ready, few enough to keep memory small.
_IN_FLIGHT_PER_WORKER = 3


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """``map(function, items)`` over processes: same results, same order.

    Args:
      function: picklable, from a module that is cheap to import (workers are fresh interpreters).
      items: picklable; read only a little ahead of the results.
      workers: number of processes; 1 computes in this one.

    Raises:
      UsageError: ``workers`` is less than 1.
      RunError: a worker was killed.
    """
    if workers < 1:
        raise UsageError(f"workers is {workers}, expected at least 1")
    return map(function, items) if workers == 1 else _parallel_map(function, items, workers)


def _parallel_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    # Fresh interpreters: forking a process that runs the threads of JAX or TensorFlow can hang.
    context = multiprocessing.get_context("spawn")
    pending: deque[Future[Result]] = deque()
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= _IN_FLIGHT_PER_WORKER * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool as error:
            raise RunError("a worker process was killed, perhaps for want of memory") from error
        finally:
            for future in pending:
                future.cancel()


def _start_worker() -> None:
    """Leave Ctrl-C to the main process, never outlive it, and use one core."""
    # Threads of the tokenizers library in every one of the processes would only get in their way.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main_process = multiprocessing.parent_process()
    if main_process is not None:
        threading.Thread(target=_exit_after, args=(main_process,), daemon=True).start()


def _exit_after(process: multiprocessing.process.BaseProcess) -> None:
    process.join()
    os._exit(1)
