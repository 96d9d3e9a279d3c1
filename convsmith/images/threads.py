"""Many pictures at once: decoding and hashing release the interpreter's lock, so threads are enough."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")
Progress = Callable[[int, int], None]

AHEAD = 8  # tasks in flight per thread: enough to keep all busy, few enough that memory stays bounded


def processors() -> int:
    """How many of them this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(
    work: Callable[[int], Result], count: int, progress: Progress | None = None, *, chunk: int = 1
) -> Generator[Result, None, None]:
    """Yield `work(0)`, `work(1)`, ... in order, computed by one thread per processor.

    Whatever ends the iteration (an error, Ctrl-C, `close`) drops what has not begun. Pillow's warnings are silenced
    meanwhile: what is wrong with a file is told once, by the audit.

    Args:
        work: takes an index; must be safe to call from several threads.
        count: how many.
        progress: called with (done, count) after each.
        chunk: how many a thread takes at a time: more where the work is short and its result small.
    """
    pool = ThreadPoolExecutor(processors())
    starts, ahead = range(0, count, chunk), AHEAD * processors()

    def several(start: int) -> list[Result]:
        return [work(i) for i in range(start, min(start + chunk, count))]

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
            waiting = deque(pool.submit(several, start) for start in starts[:ahead])
            following = iter(starts[ahead:])
            done = 0
            while waiting:
                results = waiting.popleft().result()
                if (start := next(following, None)) is not None:
                    waiting.append(pool.submit(several, start))
                for result in results:
                    yield result
                    done += 1
                    if progress is not None:
                        progress(done, count)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
