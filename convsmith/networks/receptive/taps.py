"""Which positions of a map each window, cell or enlarged position reads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np


@dataclass(frozen=True)
class Taps:
    """Which positions along a dimension each new position reads.

    Args:
        index: int `[new, taps]`; below zero and past the end are in the padding.
        period, shift: position `i + period` reads what position `i` reads, moved on by `shift`.
        valid: bool that can be expanded to `index`'s shape, where some taps do not exist.
        pools: it is a global pooling: one position reads all of them.
    """

    index: np.ndarray
    period: int = 1
    shift: int = 1
    valid: np.ndarray | None = None
    pools: bool = False


def window_taps(length: int, kernel: int, stride: int, padding: int, dilation: int) -> Taps:
    """What `length` windows read."""
    index = np.arange(length)[:, None] * stride - padding + np.arange(kernel) * dilation
    return Taps(index, shift=stride)


def transposed_taps(length: int, kernel: int, stride: int, padding: int, dilation: int) -> Taps:
    """What `length` positions of a transposed convolution read."""
    reached = np.arange(length)[:, None] + padding - np.arange(kernel) * dilation
    return Taps(reached // stride, period=stride, valid=reached % stride == 0)


def cell_taps(old: int, new: int) -> Taps:
    """What the `new` cells of an adaptive pooling read of `old` positions."""
    starts = [cell * old // new for cell in range(new)]
    stops = [-(-(cell + 1) * old // new) for cell in range(new)]
    most = max(stop - start for start, stop in zip(starts, stops, strict=True))
    index = np.array(starts)[:, None] + np.arange(most)
    shared = math.gcd(old, new)
    return Taps(index, new // shared, old // shared, index < np.array(stops)[:, None], pools=new == 1)


def resampling_taps(name: str, new: int, step: Fraction, *, corners: bool) -> Taps:
    """What `new` positions read of a map in which they are `step` apart."""
    half = Fraction(1, 2)
    if "nearest" in name:
        shift = half if "exact" in name else Fraction(0)
        index = np.array([[math.floor((place + shift) * step)] for place in range(new)])
        return Taps(index, step.denominator, step.numerator)
    sources = [place * step if corners else (place + half) * step - half for place in range(new)]
    reads = range(-1, 3) if "cubic" in name else range(2)
    index = np.array([[math.floor(source) + read for read in reads] for source in sources])
    between = np.array([source.denominator > 1 for source in sources])[:, None]
    return Taps(index, step.denominator, step.numerator, valid=between | (np.array(reads) == 0))
