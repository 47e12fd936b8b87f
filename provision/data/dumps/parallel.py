"""Several collections at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import TypeVar

# The server works meanwhile, too: with more, both wait for processors.
WORKERS = max(2, min(4, (os.cpu_count() or 2) // 2))

Item = TypeVar("Item")
Done = TypeVar("Done")


def in_parallel(work: Callable[[Item, Callable[[], bool]], Done], items: Sequence[Item]) -> list[Done]:
    """Do some at a time; the first failure ends the others at their next step, and is raised.

    `work` gets an item, and a function that says whether to stop.
    """
    stop = threading.Event()
    pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="dump")
    try:
        futures: list[Future[Done]] = [pool.submit(work, item, stop.is_set) for item in items]
        return [future.result() for future in as_completed(futures)]
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
