"""Processes that look at files: threads share one interpreter, and half of a look at a small photo is Python.

A reader is a fresh interpreter that imports this module and nothing of PyTorch, gets lists of paths through a pipe and
gives back what was seen. It is neither forked, which is unsafe beside other threads, nor started by `multiprocessing`,
which runs the user's main module again. It ends when the pipe does, so also with whatever kills the one who asked.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import IO

from convsmith.errors import ResourceError
from convsmith.images.decode import UnreadableImage
from convsmith.images.examine import Seen, examine
from convsmith.images.memory import Refused
from convsmith.images.threads import in_threads, processors

FROM = 1_000
"""Files from which on processes repay their start, which takes 0.2 s each."""
CHUNK = 128  # files a reader takes at a time

Look = tuple[Seen | Refused, bool]
"""What was seen, and whether the same bytes would give the same again."""


def look_at(path: str, pick: tuple[int, ...] | None, floats: bool) -> Look:
    """Examine a file; what speaks against it is an answer, too."""
    try:
        return examine(path, pick=pick, floats=floats), True
    except UnreadableImage as error:
        return Refused(error.reason, error.mend), error.lasting


def look_at_all(paths: Sequence[str], pick: tuple[int, ...] | None, floats: bool) -> Generator[Look, None, None]:
    """Examine files on all processors, in their order.

    Raises:
        ResourceError: a reader was killed, as by a machine that is short of memory, or crashed.
    """
    if len(paths) < FROM or processors() == 1:
        yield from in_threads(lambda k: look_at(paths[k], pick, floats), len(paths), chunk=16)
        return
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    with _readers(processors()) as idle:

        def ask(k: int) -> list[Look]:
            reader = idle.get()
            try:
                return _ask(reader, chunks[k], pick, floats)
            finally:
                idle.put(reader)

        with closing(in_threads(ask, len(chunks))) as answers:
            for looks in answers:
                yield from looks


@contextmanager
def _readers(count: int) -> Iterator[queue.SimpleQueue[subprocess.Popen[bytes]]]:
    command = [sys.executable, "-c", "from convsmith.images.readers import serve; serve()"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    started: list[subprocess.Popen[bytes]] = []
    idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
    try:
        for _ in range(count):
            started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment))
            idle.put(started[-1])
        yield idle
    finally:
        for reader in started:
            with suppress(OSError):  # it is gone already
                reader.stdin.close()  # type: ignore[union-attr]
        for reader in started:
            reader.wait()
            reader.stdout.close()  # type: ignore[union-attr]


def _ask(
    reader: subprocess.Popen[bytes], paths: Sequence[str], pick: tuple[int, ...] | None, floats: bool
) -> list[Look]:
    assert reader.stdin is not None
    assert reader.stdout is not None
    try:
        _send(reader.stdin, ([os.fsencode(path) for path in paths], pick, floats))
        return pickle.load(reader.stdout)  # noqa: S301 - a process of our own
    except (OSError, EOFError, pickle.UnpicklingError) as error:
        code = reader.wait()
        how = f"signal {-code}" if code < 0 else f"status {code}"
        raise ResourceError(
            f"A process that read images ended by {how}; among these was what it read last: {paths[0]} and the "
            f"{len(paths) - 1} files after it.",
            mend="Start again: what was read is remembered. If it ends again, free memory, or move these files aside.",
        ) from error


def serve() -> None:
    """Answer until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asks gets it too, and closes the pipe
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that a decoder prints may reach the answers
    while True:
        try:
            paths, pick, floats = pickle.load(asked)  # noqa: S301 - from who started this
        except EOFError:
            return
        looks: list[Look] = list(_quietly(paths, pick, floats))
        try:
            _send(answers, looks)
        except BrokenPipeError:
            os._exit(0)


def _quietly(paths: list[bytes], pick: tuple[int, ...] | None, floats: bool) -> Iterator[Look]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
        for path in paths:
            yield look_at(os.fsdecode(path), pick, floats)


def _send(pipe: IO[bytes], what: object) -> None:
    pickle.dump(what, pipe, protocol=pickle.HIGHEST_PROTOCOL)
    pipe.flush()
