"""Where a network is weaker: its accuracy on the darkest, least sharp, smallest, widest third of the images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convsmith.errors import DataError
from convsmith.evaluation.calibration import equal_mass_bins
from convsmith.evaluation.intervals import Groups, difference, proportion
from convsmith.evaluation.predictions import Predictions
from convsmith.records import Estimate

Facts = Mapping[str, NDArray[np.floating]]

THIRDS: dict[str, tuple[str, tuple[str, str, str]]] = {
    "brightness": ("brightness", ("darkest third", "middle third by brightness", "brightest third")),
    "sharpness": ("sharpness", ("least sharp third", "middle third by sharpness", "sharpest third")),
    "size": ("size", ("smallest third", "middle third by size", "largest third")),
    "aspect": ("shape", ("tallest third", "middle third by shape", "widest third")),
}
"""Fact to what it is called in a record, and the names of its thirds from the lowest values to the highest."""

FEWEST_IMAGES, FEWEST_IN_A_THIRD = 60, 20  # with 20 images an accuracy of 0.9 is known to within 0.7 and 0.97
SHARE = (0.25, 0.42)  # of the images that a third may hold, for equal values are never parted


def slices(predictions: Predictions, facts: Facts, groups: Groups = None) -> list[dict[str, Any]]:
    """Compare the accuracy within each third of the images, by facts about them, with that of all others.

    A fact is split only where its thirds are worth the name: 60 images or more for which it is known, 20 in each third,
    and none far larger than the others because many images share one value (all of one size, say).

    Twelve comparisons at 95 % are made of a split, and nothing corrects for that: of simulated networks that are
    equally good everywhere (300 images) four in ten show one that excludes zero. A reader has to allow for it.

    Args:
        predictions: of N images.
        facts: by name, a number for each image, NaN where it is not known: `brightness`, `sharpness`, `size` (pixels),
            `aspect` (width over height).
        groups: one name for each image ("" for none); the intervals then allow for images that belong together.

    Returns:
        For JSON, fact by fact and from low to high: `by` (brightness, sharpness, size, shape), `name`, `n`, and the
        estimates `accuracy`, `rest` and `difference` (accuracy less rest).

    Raises:
        DataError: a fact that is not known by name, or not one number for each image.

    Source: for the difference, `intervals.difference`.
    """
    right = predictions.targets == predictions.predicted
    names = None if groups is None else np.asarray(groups, dtype=np.str_)
    found: list[dict[str, Any]] = []
    for fact, values in facts.items():
        _check(fact, values, len(predictions))
        known = np.flatnonzero(np.isfinite(values))
        thirds = _thirds(np.asarray(values, np.float64)[known])
        if thirds is None:
            continue
        by, words = THIRDS[fact]
        for third, name in enumerate(words):
            inside, rest = (
                proportion(right[rows], None if names is None else names[rows])
                for rows in (known[thirds == third], known[thirds != third])
            )
            figures = {"accuracy": inside, "rest": rest, "difference": _gap(inside, rest)}
            estimates = {key: estimate.to_json() for key, estimate in figures.items()}
            found.append({"by": by, "name": name, "n": int(np.count_nonzero(thirds == third)), **estimates})
    return found


def _thirds(values: NDArray[np.float64]) -> NDArray[np.int64] | None:
    """The third 0, 1, 2 of each value, or None where there are no such."""
    n = len(values)
    if n < FEWEST_IMAGES:
        return None
    thirds = equal_mass_bins(values, 3)
    sizes = np.bincount(thirds)
    fair = len(sizes) == 3 and sizes.min() >= max(FEWEST_IN_A_THIRD, SHARE[0] * n) and sizes.max() <= SHARE[1] * n
    return thirds if fair else None


def _gap(inside: Estimate, rest: Estimate) -> Estimate:
    value = float(inside.value or 0.0) - float(rest.value or 0.0)
    n = inside.n + rest.n
    if inside.low is None or rest.low is None:
        return Estimate(value, None, None, n, "none: one side has no interval")
    _, low, high = difference(inside, rest)
    return replace(inside, value=value, low=low, high=high, n=n, method=f"Newcombe, of two: {inside.method}")


def _check(fact: str, values: NDArray[np.floating], n: int) -> None:
    if fact not in THIRDS:
        raise DataError(f"Images are not split by {fact!r}.", mend=f"Known: {', '.join(THIRDS)}.")
    if np.shape(values) != (n,):
        raise DataError(f"The fact {fact!r} has shape {list(np.shape(values))}, but there are {n} images.")
