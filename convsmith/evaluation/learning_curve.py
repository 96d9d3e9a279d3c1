"""Whether more images would help: what the last doubling of the training images brought, on the same test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from convsmith.errors import DataError
from convsmith.evaluation.comparison import paired_gain
from convsmith.evaluation.intervals import Groups
from convsmith.evaluation.predictions import Predictions
from convsmith.records import Estimate

WORTHWHILE = 0.015  # a doubling that surely brings less than 1.5 points is called flat: labelling is the dear part


def judge(
    points: Sequence[Mapping[str, Any]],
    predictions: Sequence[Predictions],
    groups: Groups = None,
    *,
    probe: str = "linear probe",
) -> tuple[str, bool | None]:
    """Say in one sentence whether more training images would help.

    The gain from half to all of the images is what one more doubling might bring again, or rather less. It is
    judged pair by pair on the test images: rising where its interval lies above zero, flat where the interval ends
    below 1.5 points, and otherwise not to be told. The interval knows the chance in the test images, but not the one
    in which half of the training images was taken.

    Args:
        points: of the curve, each with `share` (of the training images) and `images` (how many these are); 1/2 and 1
            must be among them, and each share should hold the images of the smaller ones.
        predictions: of the same test images, for each point.
        groups: one name for each image of the predictions at 1, in their order; "" for none.
        probe: what was trained on the shares, for the sentence: it is what was measured, not the network of the run.

    Returns:
        the sentence; and True for rising, False for flat, None where it cannot be told.

    Raises:
        DataError: a share is missing or there twice, or the test images differ.
    """
    half, whole = _at(points, 0.5), _at(points, 1.0)
    gain = paired_gain(predictions[whole], predictions[half], groups)
    n = len(predictions[whole])
    if gain.value is None or gain.low is None or gain.high is None:
        return f"Whether more images would help cannot be told with {_images(n)}: {gain.reason or gain.method}.", None
    shares = f"from {points[half]['images']:,} to all {points[whole]['images']:,} training images"
    change = _change(gain, f"{shares} the accuracy of the {probe}")
    measured = f"{change} on {_images(n)}); the {probe} alone was measured so"
    if gain.low > 0:
        return f"More images would probably help: {measured}.", True
    if gain.high < WORTHWHILE:
        return f"More images of this kind would hardly help: {measured}.", False
    return f"Whether more images would help cannot be told with {_images(n)}: {measured}.", None


def _at(points: Sequence[Mapping[str, Any]], share: float) -> int:
    found = [index for index, point in enumerate(points) if abs(point["share"] - share) < 1e-9]
    if len(found) != 1:
        shares = ", ".join(f"{point['share']:g}" for point in points) or "none"
        raise DataError(f"A learning curve needs one point at the share {share:g}, but there are: {shares}.")
    return found[0]


def _change(gain: Estimate, subject: str) -> str:
    value, low, high = (100 * float(x or 0.0) for x in (gain.value, gain.low, gain.high))
    verb = f"rose by {value:.1f} points" if value > 0 else f"fell by {-value:.1f} points" if value < 0 else "stayed"
    return f"{subject} {verb} (95 % interval {low:+.1f} to {high:+.1f}"


def _images(n: int) -> str:
    return f"{n:,} test image{'s' if n != 1 else ''}"
