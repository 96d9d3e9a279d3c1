"""Commands as a user types them: in this process, which is quick, or in one of their own, which can be killed."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SMALL_NETWORK = "model={name: convnet, options: {width: 8, stages: 2}}"
LITTLE = (
    "--set", "train.batch=8", "--set", "train.precision=float32", "--set", "train.memory_format=contiguous",
)  # fmt: skip
"""Options that leave little to measure."""
SMALL = ("--set", SMALL_NETWORK, *LITTLE)
"""Options that keep a run small besides."""
PATIENCE = 120.0
PRELOADED = ["convsmith.cli.show", "convsmith.pipeline", "convsmith.api", "scipy.stats", "scipy.optimize"]


@dataclass(frozen=True)
class Typed:
    """What a command gave back."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def typed(*arguments: object, stdin: str = "") -> Typed:
    """Run a command in this process."""
    from convsmith.cli import commands

    commands.STARTED = time.monotonic()
    out, err, former = io.StringIO(), io.StringIO(), sys.stdin
    sys.stdin = io.StringIO(stdin)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = commands.run([str(argument) for argument in arguments])
    finally:
        sys.stdin = former
    return Typed(code, out.getvalue(), err.getvalue())


def trained(data: object, runs: Path, *arguments: object) -> Path:
    """Train in this process, quietly, and return the run's folder; fail where the command fails."""
    options = LITTLE if "--model" in arguments else SMALL
    done = typed("train", data, "--runs", runs, *options, *arguments)
    assert done.code == 0, done.err
    return only_run(runs)


def only_run(runs: Path) -> Path:
    """The one run folder in `runs`."""
    (run,) = runs.iterdir()
    return run


class Started:
    """A command in a process of its own, forked from one that has torch loaded already.

    Args:
        folder: where its output is written to.
        arguments: what was typed.
    """

    def __init__(self, folder: Path, *arguments: object) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        folder.mkdir(parents=True, exist_ok=True)
        self._out, self._err = folder / "out.txt", folder / "err.txt"
        for path in (self._out, self._err):
            path.touch()
        words = [str(argument) for argument in arguments]
        self.process = context.Process(target=_child, args=(words, str(self._out), str(self._err), dict(os.environ)))
        self.process.start()

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self.process.close()

    @property
    def err(self) -> str:
        return self._err.read_text()

    @property
    def out(self) -> str:
        return self._out.read_text()

    def send(self, number: signal.Signals) -> None:
        """Send it a real signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def until(self, seen: Callable[[], object], pause: float = 0.002) -> None:
        """Wait until something can be seen; fail where the process ends before."""
        end = time.monotonic() + PATIENCE
        while not seen():
            assert self.process.is_alive(), f"ended with {self.process.exitcode} before: {self.err}"
            assert time.monotonic() < end, f"never seen: {self.err}"
            time.sleep(pause)

    def code(self, patience: float = PATIENCE) -> int:
        """Wait for its end and return the exit code; -9 after SIGKILL."""
        self.process.join(patience)
        assert self.process.exitcode is not None, f"still running after {patience} s: {self.err}"
        return self.process.exitcode


def _child(arguments: Sequence[str], out: str, err: str, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for path, descriptor in ((out, 1), (err, 2)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, descriptor)
        os.close(opened)
    from convsmith.cli import commands

    commands.STARTED = time.monotonic()
    code = commands.run(list(arguments))
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)


def steps_logged(run: Path) -> int:
    """The last step in a run's log, 0 where there is none."""
    try:
        lines = (run / "log.jsonl").read_bytes().splitlines()
    except OSError:
        return 0
    for line in reversed(lines):
        with contextlib.suppress(ValueError):
            return int(json.loads(line)["step"])
    return 0
