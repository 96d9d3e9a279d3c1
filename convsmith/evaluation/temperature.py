"""One number that makes confidences honest: what all logits are divided by before they become probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convsmith.errors import DataError
from convsmith.evaluation.intervals import Floats, Integers
from convsmith.evaluation.metrics import losses

WIDEST = 4.0
"""Temperatures from e^-4 to e^4 are tried: 0.02 to 55."""


@dataclass(frozen=True)
class Temperature:
    """A temperature and what it did to the images it was fitted on.

    Args:
        value: logits are divided by it; above 1 confidences fall, below 1 they rise, and no answer changes.
        images: how many it was fitted on.
        before, after: their mean log loss in nats, without it and with it.
    """

    value: float
    images: int
    before: float
    after: float


def fit_temperature(logits: NDArray[np.floating], targets: Integers) -> Temperature:
    """Find the temperature that makes the log loss of some images least, being drawn towards 1 where they are few.

    Added to the summed log loss is half the square of the temperature's logarithm, a normal prior of deviation 1 about
    a temperature of 1. It weighs as much as a handful of images, and keeps a network that names all of a few images
    rightly from being told that it is infinitely sure.

    Args:
        logits: [N, K], N > 0, of images that the network did not learn from.
        targets: int [N].

    Raises:
        DataError: there are no images, or a logit is not finite.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2 (equation 9); the prior is ours.
    """
    from scipy.optimize import minimize_scalar  # as long to load as all else here together

    scores = np.asarray(logits, np.float64)
    if not len(scores) or not np.isfinite(scores).all():
        raise DataError("A temperature needs images whose logits are all finite.")

    def cost(log: float) -> float:
        return float(losses(scores / np.exp(log), targets).sum()) + log**2 / 2

    best = minimize_scalar(cost, bounds=(-WIDEST, WIDEST), method="bounded", options={"xatol": 1e-6})
    value = float(np.exp(best.x))
    return Temperature(
        value, len(scores), float(losses(scores, targets).mean()), float(losses(scores / value, targets).mean())
    )


def divided(logits: NDArray[np.floating], temperature: Floats | float) -> NDArray[np.float64]:
    """Logits float32 `[N, K]` over one temperature, or over one for each image, `[N]`.

    The result is float64, in which neighbours of float32 stay apart: so no answer changes.
    """
    each = np.broadcast_to(np.asarray(temperature, np.float64), (len(logits),))
    return np.asarray(logits, np.float64) / each[:, None]
