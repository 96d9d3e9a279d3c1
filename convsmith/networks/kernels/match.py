"""Which classical kernel a learnt filter looks like, and whether that is more than chance.

The likeness is the cosine between filter and kernel as lists of numbers: 1 for the same shape at any strength, 0 for
nothing in common. A classical kernel may be mirrored and negated, and of a filter over several channels each channel
may weigh the kernel as fits best (the largest cosine there is: Eckart & Young 1936 with one shape held fixed).

With so much freedom a filter of random numbers also comes near to something: of one channel and 3x3, one in a hundred
reaches 0.905. So a likeness counts as near only where fewer reach it, and from 0.8 on, where two thirds of the filter's
strength (its squares) are the kernel's.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from convsmith.errors import UsageError
from convsmith.networks.kernels.bank import KERNELS, gabor, gaussian, gaussian_derivative, laplacian_of_gaussian

RANDOM_FILTERS = 4000
CHANCE = 0.01
"""Share of random filters that may reach the threshold."""
LEAST = 0.8
"""The threshold's lower end: large random filters are like nothing at all, and 0.4 is no likeness to the eye."""
COLOURS = ("red", "green", "blue")
_ANGLES = (0.0, 22.5, 45.0, 67.5, 90.0, 112.5, 135.0, 157.5)


@dataclass(frozen=True)
class Likeness:
    """The classical kernel that a filter is most like.

    Args:
        kernel: its name, with options where it has some.
        changes: what was done to it to fit, of `mirrored left to right`, `mirrored top to bottom`, `negated`; of
            several channels the weights hold the signs.
        cosine: from 0 to 1.
        near: whether it reaches the threshold.
        channels: weight of each input channel, of length 1; `(1.0,)` where there is one.
        shape: the kernel as it was laid on the filter, `[k, k]`, of length 1.
    """

    kernel: str
    changes: tuple[str, ...]
    cosine: float
    near: bool
    channels: tuple[float, ...]
    shape: np.ndarray

    @property
    def described(self) -> str:
        """The kernel in words: `sobel-vertical, negated`, or `box in red 0.8, green -0.6, blue 0.1`."""
        words = ", ".join((self.kernel, *self.changes))
        if len(self.channels) != len(COLOURS) or not self.cosine:
            return words
        weights = ", ".join(
            f"{name} {round(weight, 1) + 0.0:.1f}" for name, weight in zip(COLOURS, self.channels, strict=True)
        )
        return f"{words} in {weights}"

    @property
    def says(self) -> str:
        """The kernel in words, or that there is no near one."""
        return self.described if self.near else "no near one"


def likenesses(filters: np.ndarray) -> list[Likeness]:
    """The classical kernel each filter is most like.

    Args:
        filters: `[N, C, k, k]`, k from 3 to 31.

    Returns:
        One for each filter; a filter of zeros is like nothing, with a cosine of 0.

    Raises:
        UsageError: filters that are not square, or smaller than 3x3, which have no shape to speak of.
    """
    n, channels, height, width = filters.shape
    if height != width or not 3 <= height <= 31:
        raise UsageError(
            f"Filters of {height}x{width} are not compared: the classical kernels are square, of 3x3 to 31x31.",
            mend="Look at the filters' numbers and pictures instead.",
        )
    bank = _bank(height)
    shapes = np.stack([shape.ravel() for _, _, shape in bank])
    least = threshold(channels, height)
    flat = filters.reshape(n, channels, -1).astype(np.float64)
    found = []
    for filter_, products in zip(flat, flat @ shapes.T, strict=True):  # products [C, kernels]
        strengths = np.linalg.norm(products, axis=0)
        best = int(strengths.argmax())
        name, changes, shape = bank[best]
        length = float(np.linalg.norm(filter_))
        cosine = float(strengths[best]) / length if length else 0.0
        weights = products[:, best] / strengths[best] if strengths[best] else np.zeros(channels)
        if channels == 1 and weights.sum() < 0:
            weights, shape, changes = -weights, -shape, (*changes, "negated")
        near = cosine >= least
        found.append(Likeness(name, changes, min(cosine, 1.0), near, tuple(map(float, weights)), shape))
    return found


@functools.lru_cache
def threshold(channels: int, size: int) -> float:
    """The cosine from which on a filter is near: `LEAST`, or what one random filter in a hundred reaches.

    Random filters are drawn with a fixed seed from a normal distribution, as a network's are before training.

    Args:
        channels, size: of the filters, `[channels, size, size]`.
    """
    shapes = np.stack([shape.ravel() for _, _, shape in _bank(size)])
    drawn = np.random.default_rng(0).standard_normal((RANDOM_FILTERS, channels, size * size))
    drawn /= np.linalg.norm(drawn, axis=(1, 2), keepdims=True)
    best = np.sqrt(np.square(drawn @ shapes.T).sum(axis=1)).max(axis=1)
    return max(LEAST, float(np.quantile(best, 1 - CHANCE)))


@functools.lru_cache
def _bank(size: int) -> list[tuple[str, tuple[str, ...], np.ndarray]]:
    """Name, changes and shape of all that a filter of `size` is compared with; shapes have length 1 and differ."""
    named = [
        (name, kernel)
        for name, entry in KERNELS.items()
        if (kernel := entry.load()()).shape[0] <= size
    ]  # fmt: skip
    if size >= 5:
        named += _scaled(size)
    bank: list[tuple[str, tuple[str, ...], np.ndarray]] = []
    for name, kernel in named:
        laid = np.zeros((size, size))
        begin = (size - kernel.shape[0]) // 2
        laid[begin : begin + kernel.shape[0], begin : begin + kernel.shape[1]] = kernel
        laid /= np.linalg.norm(laid)
        for changes, shape in (
            ((), laid),
            (("mirrored left to right",), laid[:, ::-1]),
            (("mirrored top to bottom",), laid[::-1]),
            (("mirrored left to right", "mirrored top to bottom"), laid[::-1, ::-1]),
        ):
            # The sign is found by the cosine, so a shape that is another's negative adds nothing.
            if all(abs(float((shape * other).sum())) < 1 - 1e-9 for _, _, other in bank):
                bank.append((name, changes, np.ascontiguousarray(shape)))
    return bank


def _scaled(size: int) -> list[tuple[str, np.ndarray]]:
    """The kernels that a formula draws at any size, as wide as a larger filter has room for."""
    named = []
    for part in (8, 6, 4):
        sigma = round(size / part, 2)
        named.append((f"gaussian:size={size},sigma={sigma:g}", gaussian(size, sigma)))
        named.append((f"laplacian-of-gaussian:size={size},sigma={sigma:g}", laplacian_of_gaussian(size, sigma)))
        named += [
            (
                f"gaussian-derivative:size={size},sigma={sigma:g},angle={angle:g}",
                gaussian_derivative(size, sigma, angle),
            )
            for angle in _ANGLES
        ]
    for part in (1.0, 1.5, 2.0, 3.0):
        wavelength = round(max(size / part, 2.0), 1)
        named += [
            (
                f"gabor:size={size},wavelength={wavelength:g},angle={angle:g},phase={phase:g},"
                f"sigma={size / 4:g},aspect=1",
                gabor(size, wavelength, angle, phase, sigma=size / 4, aspect=1.0),
            )
            for angle in _ANGLES
            for phase in (0.0, 90.0)
        ]
    return named
