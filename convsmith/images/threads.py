"""Many pictures at once: decoding and hashing release the interpreter's lock, so threads are enough."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")
Progress = Callable[[int, int], None]

AHEAD = 8  # pictures in flight per thread: enough to keep all busy, few enough that memory stays bounded


def in_threads(work: Callable[[int], Result], count: int, progress: Progress | None = None) -> Iterator[Result]:
    """Yield `work(0)`, `work(1)`, ... in order, computed by one thread per processor.

    Whatever ends the iteration (an error, Ctrl-C, `close`) drops what has not begun. Pillow's warnings are silenced
    meanwhile: what is wrong with a file is told once, by the audit.

    Args:
        work: takes an index; must be safe to call from several threads.
        count: how many.
        progress: called with (done, count) after each.
    """
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pool = ThreadPoolExecutor(processors)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
            waiting = deque(pool.submit(work, i) for i in range(min(count, AHEAD * processors)))
            for done in range(1, count + 1):
                result = waiting.popleft().result()
                if done + len(waiting) < count:
                    waiting.append(pool.submit(work, done + len(waiting)))
                yield result
                if progress is not None:
                    progress(done, count)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
