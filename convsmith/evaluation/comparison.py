"""Two answers to the same images, and one answer to some of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from convsmith.errors import DataError
from convsmith.evaluation.intervals import (
    Groups,
    Integers,
    group_codes,
    normal_quantile,
    proportion,
    student_quantile,
    variance_of_mean,
)
from convsmith.evaluation.predictions import Predictions
from convsmith.records import Estimate


def paired_gain(first: Predictions, second: Predictions, groups: Groups = None, *, level: float = 0.95) -> Estimate:
    """The accuracy of `first` less that of `second` on the same images, with Tango's score interval.

    All usual intervals of matched pairs keep their coverage (simulated at 40 to 2,000 images: 0.94 and more, as for
    Agresti's and Min's in `intervals.paired_difference` and Newcombe's method 10). This one is taken where two networks
    are compared because its errors fall evenly on both sides, where Agresti's and Min's draws the gain towards zero
    (4 against 2 % at 150 images), and because it excludes zero exactly where McNemar's test is significant (the plain
    one; the exact one, whose p is given, asks for a little more).

    Where images form groups, the table is that of as many images as the groups are worth (as in
    `intervals.proportion`), and the p value, which knows no groups, is left out.

    Args:
        first, second: predictions of the same ids with the same true classes, in any order.
        groups: one name for each image of `first`, in its order; "" for none.
        level: nominal coverage.

    Returns:
        The estimate; its `method` tells how many images only one of the two has right, and the p of McNemar's
        exact test.

    Raises:
        DataError: the ids or true classes differ, or groups are not as many as images.

    Source: Tango 1998, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design", the score statistic and its constrained estimate.
    """
    rows = _matching(first, second)
    ours = first.targets == first.predicted
    theirs = (second.targets == second.predicted)[rows]
    if groups is not None and len(groups) != len(first):
        raise DataError(f"{len(groups)} groups were given for {len(first)} images; one for each is needed.")
    n = len(ours)
    if n == 0:
        return Estimate.undefined("there are no images to compare")
    gained, lost = int(np.count_nonzero(ours & ~theirs)), int(np.count_nonzero(theirs & ~ours))
    value, counted = (gained - lost) / n, f"{gained} of {n} images right by the first alone, {lost} by the second"
    codes = group_codes(groups)
    if codes is None:
        low, high = tango(gained, lost, n, level=level)
        method = f"matched pairs, Tango {100 * level:g} %: {counted}, McNemar exact {_p_value(mcnemar(gained, lost))}"
        return Estimate(value, low, high, n, method, level=level)
    units = int(codes.max()) + 1
    if units == 1:
        return Estimate(value, None, None, 1, "none: all images belong to one group", level=level)
    share = _effective_size(ours.astype(np.int64) - theirs, codes, level) / n
    low, high = tango(gained * share, lost * share, n * share, level=level)
    method = f"matched pairs, Tango {100 * level:g} %, effective size of {units} groups: {counted}"
    return Estimate(value, low, high, units, method, level=level)


def tango(b: float, c: float, n: float, *, level: float = 0.95) -> tuple[float, float]:
    """The limits of (b - c) / n, by inverting the score test of each difference.

    Args:
        b, c: pairs in which the first alone, and the second alone, is right; need not be whole.
        n: all pairs, above 0.
        level: nominal coverage.
    """
    z, value = normal_quantile(level), (b - c) / n

    def statistic(delta: float) -> float:
        # the probability of "second alone" that is likeliest if the true difference is delta
        along = -b - c + (2 * n - b + c) * delta
        root = math.sqrt(max(0.0, along * along + 8 * n * c * delta * (1 - delta)))
        likeliest = (root - along) / (4 * n)
        variance = n * (2 * likeliest + delta * (1 - delta))
        return (b - c - n * delta) / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, value - delta)

    return (
        _crossing(lambda delta: statistic(delta) > z, -1.0, value),
        _crossing(lambda delta: statistic(delta) > -z, value, 1.0),
    )


def mcnemar(b: int, c: int) -> float:
    """The two-sided p of McNemar's exact test: how surprising b against c is, if both were equally likely."""
    from scipy.special import bdtr  # 0.1 s to import

    return min(1.0, 2 * float(bdtr(min(b, c), b + c, 0.5))) if b + c else 1.0


def scored_without(predictions: Predictions, ids: Iterable[str], groups: Groups = None) -> dict[str, Any]:
    """The accuracy on the images that are left when some, such as those also trained on, are left out.

    Args:
        predictions: of N images.
        ids: those to leave out; ids that were not predicted change nothing.
        groups: one name for each of the N images ("" for none).

    Returns:
        For JSON: `n` images left, `left_out`, and the estimate `accuracy`.
    """
    left = ~np.isin(predictions.ids, np.array([*dict.fromkeys(ids)], np.str_))
    names = None if groups is None else np.asarray(groups, dtype=np.str_)[left]
    right = (predictions.targets == predictions.predicted)[left]
    n = int(np.count_nonzero(left))
    return {"n": n, "left_out": len(left) - n, "accuracy": proportion(right, names).to_json()}


def _matching(first: Predictions, second: Predictions) -> Integers:
    """The row of `second` for each of `first`; both must know the same images by the same true classes."""
    if len(first) != len(second) or set(first.ids.tolist()) != set(second.ids.tolist()):
        only = sorted(set(first.ids.tolist()) ^ set(second.ids.tolist()))
        named = f", such as {only[0]!r}" if only else ""
        raise DataError(
            f"Answers to {len(first)} and {len(second)} images cannot be compared pair by pair: {len(only)} ids are "
            f"in one of them only{named}.",
            mend="Predict the same images with both.",
        )
    rows = np.argsort(second.ids)[np.argsort(np.argsort(first.ids))]
    true, theirs = (np.array(p.classes, np.str_)[p.targets] for p in (first, second))
    differ = np.flatnonzero(true != theirs[rows])
    if len(differ):
        i = differ[0]
        raise DataError(
            f"Image {str(first.ids[i])!r} is {str(true[i])!r} in one of the answers and {str(theirs[rows][i])!r} in "
            f"the other ({len(differ)} such).",
            mend="Predict again with both, from the same folder.",
        )
    return rows


def _effective_size(difference: Integers, codes: Integers, level: float) -> float:
    """How many independent pairs the pairs of these groups are worth, lowered for the few groups that say so."""
    n, units = len(difference), int(codes.max()) + 1
    residuals = difference - difference.mean()
    alone = float(np.square(residuals).sum()) / n**2
    between = variance_of_mean(residuals, codes)
    size = float(units) if alone == 0 else min(n, n * alone / between) if between > 0 else float(n)
    return size * (normal_quantile(level) / student_quantile(level, units - 1)) ** 2


def _crossing(above: Callable[[float], bool], low: float, high: float) -> float:
    """Where a falling function crosses a level between two places; the outer one where it does not."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if above(middle) else (low, middle)
    return (low + high) / 2


def _p_value(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
