"""A budget becomes steps by plain arithmetic, and what was missed of it is said."""

from __future__ import annotations

import numpy as np
import pytest

from convsmith.images import Dataset
from convsmith.pipeline.budget import AIM, Stopwatch, announce_drift, fix_steps
from convsmith.pipeline.messages import Message
from convsmith.recipe import Recipe


def images(train: int, tune: int, test: int) -> Dataset:
    count = train + tune + test
    roles = ["train"] * train + ["tune"] * tune + ["test"] * test
    pictures = np.zeros((count, 8, 8), np.uint8)
    return Dataset.from_arrays(pictures, np.zeros(count, int), ("a", "b"), roles=roles)


def recipe(budget: float, **train: int) -> Recipe:
    asked = {"train.budget": budget, "train.checkpoint_every": 100, "train.tune_every": 50}
    return Recipe().updated({**asked, **{f"train.{key}": value for key, value in train.items()}})


def test_the_steps_fill_what_is_left_after_a_reserve() -> None:
    watch = Stopwatch()
    watch.seconds.update(tune=2.0, checkpoint=1.0)
    watch.counts.update(tune=2, checkpoint=1)
    # Tune: 1 s for 100 images, so 0.01 s each. The end predicts all 200 of tune and test and 250 of
    # train, which are enough to compare them with: 4.5 s, and 1.045 s for the report.
    # A step takes 0.1 s, and of each checkpoint 1/100 s, of each look at tune 1/50 s: 0.13 s.
    left = AIM * 100.0 - 20.0 - 5.545
    assert fix_steps(recipe(100.0), images(800, 100, 100), watch, 40, 0.1, 20.0) == 40 + int(left / 0.13)


def test_a_run_that_never_looks_at_tune_spends_nothing_on_it() -> None:
    watch = Stopwatch()
    few = fix_steps(recipe(60.0, tune_every=0), images(800, 100, 100), watch, 10, 0.1, 10.0)
    assert few == 10 + int((AIM * 60.0 - 10.0 - 1.045) / 0.1)


def test_a_budget_that_is_spent_already_still_makes_one_step_more() -> None:
    assert fix_steps(recipe(1.0), images(80, 10, 10), Stopwatch(), 7, 0.1, 30.0) == 8


def test_the_watch_charges_one_activity_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 5.0, 5.0, 7.0, 7.0, 10.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    watch = Stopwatch()
    watch.start("training")
    with watch.during("tune"):
        pass
    watch.stop()
    assert dict(watch.seconds) == {"training": 8.0, "tune": 2.0}
    assert watch.each("tune") == 2.0
    assert watch.each("checkpoint") == 0.0


@pytest.mark.parametrize(("took", "words"), [(120.0, "slower"), (80.0, "faster"), (104.0, ""), (96.0, "")])
def test_a_missed_budget_is_announced(took: float, words: str) -> None:
    told: list[Message] = []
    announce_drift(100.0, took, told.append)
    assert [message.text for message in told if words in message.text] == [message.text for message in told]
    assert bool(told) == bool(words)
