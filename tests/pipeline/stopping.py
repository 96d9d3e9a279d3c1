"""Runs that are stopped by a real signal at chosen steps."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from typed import only_run

from convsmith import pipeline
from convsmith.errors import Interrupted
from convsmith.pipeline import Message
from convsmith.recipe import Recipe
from convsmith.run_folder import RunFolder


class StopAt:
    """A listener that sends SIGTERM to its own process at the next of the given steps."""

    def __init__(self, steps: Sequence[int], number: signal.Signals = signal.SIGTERM) -> None:
        self.steps = list(steps)
        self.number = number
        self.notes: list[str] = []

    def __call__(self, message: Message) -> None:
        if message.kind == "note":
            self.notes.append(message.text)
        event = message.values.get("event")
        if self.steps and event is not None and event.kind == "batch" and event.step == self.steps[0]:
            self.steps.pop(0)
            signal.raise_signal(self.number)


def stopped(recipe: Recipe, runs: Path, *steps: int) -> Path:
    """A run of `recipe` that was stopped at the first step, and after being resumed at each of the others."""
    stop = StopAt(steps)
    with pytest.raises(Interrupted) as caught:
        pipeline.train(recipe, runs=runs, tell=stop)
    run = only_run(runs)
    for _ in steps[1:]:
        with pytest.raises(Interrupted):
            pipeline.resume(RunFolder(run), tell=stop)
    assert caught.value.exit_code == 143
    assert f"convsmith resume {run}" in caught.value.mend
    return run
