"""From a budget of wall clock to a number of steps: measured during warm-up, fixed once, never corrected."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator

from convsmith.images import Dataset
from convsmith.pipeline.closing import closing_seconds
from convsmith.pipeline.messages import Listener, Message
from convsmith.recipe import Recipe, settled

DRIFT = 0.05
"""Share of the budget by which a run may miss it unmentioned."""
AIM = 0.97
"""Share of the budget aimed at: a machine that slows down a little still keeps it."""


class Stopwatch:
    """Seconds by activity: one activity at a time, `training` whenever nothing else is going on."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.counts: dict[str, int] = defaultdict(int)
        self._activity: str | None = None
        self._since = 0.0

    def start(self, activity: str) -> None:
        """Charge what follows to `activity`."""
        self.stop()
        self._activity, self._since = activity, time.monotonic()

    def stop(self) -> None:
        """Charge what follows to nothing."""
        if self._activity is not None:
            self.seconds[self._activity] += time.monotonic() - self._since
        self._activity = None

    @contextlib.contextmanager
    def during(self, activity: str) -> Iterator[None]:
        """Charge what happens within to `activity`, then go on with the one before."""
        before = self._activity
        self.start(activity)
        self.counts[activity] += 1
        try:
            yield
        finally:
            self.stop()
            if before is not None:
                self.start(before)

    def each(self, activity: str) -> float:
        """Mean seconds of one occurrence."""
        return self.seconds[activity] / self.counts[activity] if self.counts[activity] else 0.0


def fix_steps(
    recipe: Recipe, dataset: Dataset, watch: Stopwatch, done: int, step_seconds: float, elapsed: float
) -> int:
    """The number of steps with which the whole command ends at its budget.

    Args:
        recipe: holds the budget in seconds and how often tune images are predicted and checkpoints saved.
        dataset: says how many images are predicted at the end.
        watch: what a checkpoint, and one prediction of the tune images, have taken.
        done: steps made so far.
        step_seconds: what a step takes.
        elapsed: seconds since the command began.

    Returns:
        Steps of the whole training, more than `done`.
    """
    train = recipe.train
    tune_images = max(1, len(dataset.indices("tune")))
    per_image = watch.each("tune") / tune_images
    reserve = closing_seconds(dataset, per_image)
    per_step = step_seconds + watch.each("checkpoint") / settled(train.checkpoint_every)
    if train.tune_every:
        per_step += watch.each("tune") / settled(train.tune_every)
    left = AIM * float(train.budget or 0.0) - elapsed - reserve
    return done + max(1, int(left / per_step))


def announce_drift(budget: float, took: float, tell: Listener) -> None:
    """Say by how much a budget was missed; the steps were fixed, so nothing was corrected on the way."""
    if abs(took - budget) > DRIFT * budget:
        speed = "slower" if took > budget else "faster"
        reason = f"the machine became {speed} after the warm-up had fixed the steps"
        tell(Message("note", f"The run took {took:.0f} s of a budget of {budget:.0f} s: {reason}."))
