"""Learning-rate schedules: pure functions of the step, as a factor of the peak rate.

Warm-up lasts an absolute number of steps, and during it no schedule looks at the total. So the total may be fixed as
late as the end of warm-up, which is how a budget of wall clock becomes a number of steps after training began.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from convsmith.registry import Entry, Registry

Schedule = Callable[[int, int], float]
"""`(step, total) -> factor`: step counts from 0, `total` is the number of steps of the whole training."""


def constant(warmup_steps: int = 0) -> Schedule:
    """The peak rate throughout, after a linear warm-up."""
    return _after_warmup(warmup_steps, 0.0, lambda fraction: 1.0)


def one_cycle(warmup_steps: int = 0, start: float = 0.1, final: float = 0.0) -> Schedule:
    """Up in a straight line from `start`, then down in a straight line to `final`, both as shares of the peak.

    The last step is one before the end of the line, so that no step is spent at a rate of zero.

    Source: Smith & Topin 2018, "Super-Convergence", with linear legs and without their momentum cycle.
    """
    return _after_warmup(warmup_steps, start, lambda fraction: 1.0 + (final - 1.0) * fraction)


def cosine(warmup_steps: int = 0, final: float = 0.0) -> Schedule:
    """Half a cosine wave down to `final`, a share of the peak, after a linear warm-up.

    Source: Loshchilov & Hutter 2017, "SGDR", equation 5, without restarts.
    """
    return _after_warmup(
        warmup_steps, 0.0, lambda fraction: final + (1 - final) * (1 + math.cos(math.pi * fraction)) / 2
    )


SCHEDULES = Registry(
    "schedule",
    [
        Entry("one-cycle", one_cycle, "linear up, linear down", "Smith & Topin 2018"),
        Entry("cosine", cosine, "half a cosine wave after warm-up", "Loshchilov & Hutter 2017"),
        Entry("constant", constant, "the peak rate throughout, after warm-up"),
    ],
)


def _after_warmup(warmup_steps: int, start: float, anneal: Callable[[float], float]) -> Schedule:
    def factor(step: int, total: int) -> float:
        if step < warmup_steps:
            return start + (1.0 - start) * (step + 1) / warmup_steps
        return anneal(min(1.0, (step - warmup_steps) / max(1, total - warmup_steps)))

    return factor
