"""Short measurements on this machine: how long a training step and a prediction take, by precision and memory layout.

They run on a copy of the network with made-up images, so weights and random generators are left as they were.
"""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

from convsmith.batches import GROUP, Augment, Batches
from convsmith.evidence import predict
from convsmith.tasks import Task
from convsmith.training import Event, Loop, untouched

Precision = Literal["float32", "bfloat16"]
Layout = Literal["contiguous", "channels_last"]
MakeOptimizer = Callable[[nn.Module], torch.optim.Optimizer]
SECONDS = 2.5
COLD_TURNS = 1  # in the first step, kernels are chosen and buffers made
LEAST_TURNS = 2
MOST_TURNS = 20  # the median of so many hardly changes any more
HOPELESS = 2.0
PIXELS = 8 * 224 * 224
"""In a measured batch at the most: more photos would take half a minute to measure, and time grows with them evenly."""
POSITIONS = 1024  # images of an epoch at the least: its order and draws then weigh little more than in training


@dataclass(frozen=True)
class Speed:
    """What was measured of one way to run the network.

    Args:
        precision, layout: the way.
        seconds_per_step: of training, the median of several.
    """

    precision: Precision
    layout: Layout
    seconds_per_step: float


def measure_steps(
    model: nn.Module,
    task: Task,
    make_optimizer: MakeOptimizer,
    augment: Augment,
    *,
    shape: Sequence[int],
    outputs: int,
    batch_size: int,
    ways: Sequence[tuple[Precision, Layout]],
) -> list[Speed]:
    """Time training steps in several ways, taking turns so that a machine that slows down slows all of them.

    Args:
        shape: of one image, `[C, H, W]`.
        outputs: classes to draw labels from.
        ways: precision and layout of each candidate.

    Returns:
        One `Speed` per way, in their order; at most about `SECONDS` are spent in all.
    """
    generator = np.random.default_rng(0)
    measured = min(batch_size, GROUP * max(1, PIXELS // (shape[-2] * shape[-1]) // GROUP))
    positions = POSITIONS if measured == batch_size else 0
    count = measured * max(2, math.ceil(positions / measured))
    images = generator.integers(0, 256, (count, *shape), np.uint8)
    labels = generator.integers(0, outputs, count)
    batches = Batches(images, labels, [str(i) for i in range(count)], batch_size=measured)
    with untouched():
        racing = {way: _stepping(model, task, make_optimizer, augment, batches, *way) for way in ways}
        times: dict[tuple[Precision, Layout], list[float]] = {way: [] for way in ways}
        started = time.perf_counter()
        for turn in range(MOST_TURNS):
            if turn > LEAST_TURNS and time.perf_counter() - started > SECONDS:
                break
            for way, run in racing.items():
                before = time.perf_counter()
                next(run)
                times[way].append(time.perf_counter() - before)
            if turn == COLD_TURNS:  # what is so much slower is not worth the user's time
                best = min(taken[-1] for taken in times.values())
                racing = {way: run for way, run in racing.items() if times[way][-1] < HOPELESS * best}
    scale = batch_size / measured
    return [Speed(*way, scale * statistics.median(taken[COLD_TURNS:])) for way, taken in times.items()]


def measure_prediction(model: nn.Module, task: Task, augment: Augment, *, shape: Sequence[int]) -> float:
    """Seconds to predict one image, in batches as evaluation makes them."""
    images = np.zeros((min(256, max(8, 4 * PIXELS // (shape[-2] * shape[-1]))), *shape), np.uint8)
    taken = []
    with untouched():
        for _ in range(2):
            started = time.perf_counter()
            predict(model, task, images, prepare=augment.normalize)
            taken.append(time.perf_counter() - started)
    return min(taken) / len(images)


def _stepping(
    model: nn.Module,
    task: Task,
    make_optimizer: MakeOptimizer,
    augment: Augment,
    batches: Batches,
    precision: Precision,
    layout: Layout,
) -> Iterator[Event]:
    """One step after another on a copy of the network; each has ended on the device when its event comes."""
    own = copy.deepcopy(model)
    if layout == "channels_last":
        own.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    loop = Loop(
        own, task, {"model": make_optimizer(own)}, steps=10**9, transform=augment, precision=precision, report_every=1
    )
    yield from loop.run(batches)
