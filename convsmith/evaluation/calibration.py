"""Whether a confidence of 0.8 is right eight times in ten: reliability bins and the expected calibration error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convsmith.evaluation.intervals import Floats, Groups, group_codes, proportion
from convsmith.records import Estimate

MOST_BINS, FEWEST_IMAGES = 15, 20  # 15 is the literature's habit; a bin of fewer than 20 says little about its accuracy


@dataclass(frozen=True)
class ReliabilityBin:
    """The images of one range of confidence: their mean confidence, how often they were right, and how many."""

    confidence: float
    accuracy: Estimate
    n: int


def equal_mass_bins(confidence: Floats, bins: int | None = None) -> NDArray[np.int64]:
    """The bin 0, 1, ... of each image, by quantiles of confidence, so that all bins weigh about the same.

    Equal confidences share a bin, so the bins do not depend on the order of the images and may be fewer than asked.

    Args:
        confidence: [N], the probability of the predicted class.
        bins: how many; by default one for each 20 images, at most 15.
    """
    n = len(confidence)
    bins = bins or max(1, min(MOST_BINS, n // FEWEST_IMAGES))
    edges = np.sort(confidence)[np.arange(1, bins) * n // bins] if n else confidence[:0]
    return np.unique(np.searchsorted(np.unique(edges), confidence, side="right"), return_inverse=True)[1]


def reliability(
    confidence: Floats, right: NDArray[np.bool_], *, bins: int | None = None, groups: Groups = None
) -> list[ReliabilityBin]:
    """The reliability diagram, from the least confident bin to the most, each accuracy with a Wilson interval."""
    labels = equal_mass_bins(confidence, bins)
    names = None if groups is None else np.asarray(groups, dtype=np.str_)
    members = [np.flatnonzero(labels == label) for label in range(labels.max(initial=-1) + 1)]
    return [
        ReliabilityBin(float(confidence[m].mean()), proportion(right[m], None if names is None else names[m]), len(m))
        for m in members
    ]


def expected_calibration_error(
    confidence: Floats,
    right: NDArray[np.bool_],
    *,
    bins: int | None = None,
    groups: Groups = None,
    repeats: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """The mean distance between confidence and accuracy over equal-mass bins (ECE), corrected for its bias.

    The plain ECE sums absolute differences and so counts noise as miscalibration: a perfectly calibrated network
    measured on 500 images shows 0.02 to 0.05. A percentile bootstrap adds the noise a second time, and its interval
    then excludes the truth nearly always. Instead a test is inverted: were the true gaps s times the measured ones,
    an ECE as small as the one measured would appear with probability F(s), which falls as s grows. The estimate is
    the s with F = 1/2 (median-unbiased; 0 for about half of all calibrated networks), the limits are those with
    F = 0.975 and 0.025. Gaps are taken as normal with the binomial variance of their bin, times the
    growth that groups of images show.

    Args:
        confidence: [N], the probability of the predicted class.
        right: bool [N].
        bins: as in `equal_mass_bins`. The figure is that of the bins: finer miscalibration inside them is not seen.
        groups: one name for each image, "" for none.
        repeats: draws that F is estimated from.

    Source: the bias, Kumar, Liang & Ma 2019, "Verified uncertainty calibration", section 4; the cure is the test
    inversion of Carpenter 1999, "Test inversion bootstrap confidence intervals", in place of their debiased estimate,
    which has no interval.
    """
    n = len(confidence)
    if n == 0:
        return Estimate.undefined("there are no images to measure")
    labels, codes = equal_mass_bins(confidence, bins), group_codes(groups)
    sizes = np.bincount(labels)
    weights, mean = sizes / n, np.bincount(labels, weights=confidence) / sizes
    gaps = np.bincount(labels, weights=right) / sizes - mean
    spread = np.sqrt(_design_effects(right - confidence - gaps[labels], labels, codes) / sizes)
    normal = np.random.default_rng(seed).standard_normal((repeats, len(sizes)))
    margin = 0.5 / (sizes + 1)  # an accuracy of exactly 0 or 1 would have no variance
    measured = float(weights @ np.abs(gaps))
    direction = gaps if measured > 0 else np.ones_like(gaps)

    def accuracy(scale: float) -> Floats:
        return np.clip(mean + scale * direction, margin, 1 - margin)

    def at_most(scale: float) -> float:
        share = accuracy(scale)
        drawn = share - mean + spread * np.sqrt(share * (1 - share)) * normal
        return float(np.mean(np.abs(drawn) @ weights <= measured))

    def size(scale: float) -> float:
        return float(weights @ np.abs(accuracy(scale) - mean)) if scale else 0.0

    tail = (1 - level) / 2
    low, value, high = (size(_inverse(at_most, p)) for p in (1 - tail, 0.5, tail))
    if abs(float(weights @ gaps)) > 0.999 * measured:
        # All gaps lie on one side, so the figure is |confidence - accuracy|, and no surer than the accuracy is. Bins
        # in which every image was right would otherwise claim to know theirs exactly.
        overall = proportion(right, groups, level=level)
        ends = [abs(float(confidence.mean()) - float(end)) for end in (overall.low, overall.high) if end is not None]
        low, high = min([low, *ends]), max([high, *ends])
    units = n if codes is None else int(codes.max()) + 1
    method = f"{len(sizes)} equal-mass bins, test inversion bootstrap {100 * level:g} %, {repeats} repeats"
    return Estimate(value, low, high, units, method, level=level)


def _design_effects(residuals: Floats, labels: NDArray[np.int64], codes: NDArray[np.int64] | None) -> Floats | float:
    """How many times the variance of each bin's mean grows because its images form groups; never below 1."""
    if codes is None:
        return 1.0
    cells, inverse = np.unique(labels * (codes.max() + 1) + codes, return_inverse=True)
    grouped = np.bincount(cells // (codes.max() + 1), weights=np.bincount(inverse, weights=residuals) ** 2)
    alone = np.bincount(labels, weights=residuals**2)
    return np.maximum(1.0, grouped / np.maximum(alone, 1e-12))


def _inverse(falling: Callable[[float], float], p: float) -> float:
    """The s >= 0 where a falling function crosses p; 0 where it starts below."""
    if falling(0.0) <= p:
        return 0.0
    high = 1.0
    while falling(high) > p and high < 2.0**20:
        high *= 2
    low = 0.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > p else (low, middle)
    return (low + high) / 2
