"""The console that results and progress are printed on. It knows nothing of runs, so any room may use it."""

from __future__ import annotations

import sys

from rich.console import Console


def plain_console(*, stderr: bool = False) -> Console:
    """A console that takes the terminal's width, and 120 columns where there is none."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, highlight=False, width=None if stream.isatty() else 120)
