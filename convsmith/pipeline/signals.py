"""Ctrl-C and SIGTERM: a request to stop while training, an exception elsewhere."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from convsmith.errors import Interrupted

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
PATIENCE = 3


class Signals:
    """What arrives while it is installed.

    Outside `deferred`, a signal raises `Interrupted` at once. Within, it calls the given function, so that a step, a
    prediction or a save under way is finished; the third one is not deferred any more.
    """

    def __init__(self) -> None:
        self._request: Callable[[int], None] | None = None
        self._count = 0

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Handle signals within, and put the former handlers back after. Outside the main thread, do nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        former = {number: signal.signal(number, self._handle) for number in EXIT_CODES}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def deferred(self, request: Callable[[int], None]) -> Iterator[None]:
        """Within, a signal calls `request(exit_code)` instead of raising."""
        self._request = request
        try:
            yield
        finally:
            self._request = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        code = EXIT_CODES[signal.Signals(number)]
        self._count += 1
        if self._request is not None and self._count < PATIENCE:
            self._request(code)
            return
        raise Interrupted(f"Stopped by {signal.Signals(number).name}.", exit_code=code)
