"""What the network sees: size, channels, fit, value range, mean and deviation, from the audit and the weights."""

from __future__ import annotations

import math

import numpy as np

from convsmith.images import Dataset, bit_of, evaluation_pixels, value_range
from convsmith.pipeline.origin import Origin
from convsmith.pipeline.planner import Planner
from convsmith.recipe import settled

LARGEST_FROM_SCRATCH = 96
"""Pixels a side: beyond it, a network that starts from nothing gains less from detail than it loses in passes."""
LEAST_PRETRAINED = 96
STATISTICS_SAMPLE = 512
RANGE_SAMPLE = 256


def choose_images(planner: Planner, origin: Origin | None) -> None:
    """Resolve the section `image`.

    Args:
        origin: the weights the network starts from, which know a size and a normalisation.
    """
    _choose_range(planner)
    _choose_size(planner, origin)
    _choose_channels(planner, origin)
    _choose_fit(planner)
    _choose_statistics(planner, origin)


def _choose_range(planner: Planner) -> None:
    """Deep images are squeezed into 8 bits by what the training images hold, never by what a library does."""
    deep = _deep(planner.dataset)
    if not len(deep) or planner.recipe.image.range != "auto":
        planner.choose("image.range", None, "every image has 8 bits")
        return
    training = np.intersect1d(deep, planner.dataset.indices("train"))
    chosen = _spread(training if len(training) else deep, RANGE_SAMPLE)
    low, high = value_range(planner.dataset.read(int(index)) for index in chosen)
    why = f"{len(deep):,} images have 16 bits: the 0.1 and 99.9 percentiles of {len(chosen)} training images"
    planner.choose("image.range", (low, high), why, images=len(chosen))


def _deep(dataset: Dataset) -> np.ndarray:
    """Which images hold more than 8 bits, int64 `[n]`."""
    scan = dataset.scan
    deep = bit_of("16-bit") | bit_of("float")
    return np.zeros(0, np.int64) if scan is None else np.flatnonzero(scan.forms & deep)


def _choose_size(planner: Planner, origin: Origin | None) -> None:
    widths, heights = planner.audit["sizes"]["width"], planner.audit["sizes"]["height"]
    typical = int(min(widths["median"], heights["median"]))
    if origin is None:
        size = max(8, min(LARGEST_FROM_SCRATCH, typical))
        reason = f"the typical shorter side is {typical} px"
        if typical > LARGEST_FROM_SCRATCH:
            reason += f"; a network without weights gains more from many passes than from beyond {size} px"
    else:
        size, reason = origin.size, f"the weights were made for {origin.size} px"
        if not origin.fixed_size and origin.keep < 1:
            size = 32 * round(origin.size / origin.keep / 32)
            reason += f", cut from {size}: whole pictures of {size} px show things as large as they know them"
        enough = max(LEAST_PRETRAINED, 32 * math.ceil(typical / 32))
        if enough < size and not origin.fixed_size:
            size = enough
            reason = f"the weights were made for {origin.size} px, but the typical shorter side is only {typical} px"
    planner.choose("image.size", size, reason, median_shorter_side_px=typical)


def _choose_channels(planner: Planner, origin: Origin | None) -> None:
    colours = {int(key): count for key, count in planner.audit["channels"].items() if count}
    grey = set(colours) == {1}
    if origin is not None:
        reason = "the weights know colour: grey is given thrice" if grey else "there are colour images"
        planner.choose("image.channels", origin.channels, reason, images=colours)
    else:
        reason = "every image is grey" if grey else "there are colour images"
        planner.choose("image.channels", 1 if grey else 3, reason, images=colours)


def _choose_fit(planner: Planner) -> None:
    widths, heights = planner.audit["sizes"]["width"], planner.audit["sizes"]["height"]
    same = widths["min"] == widths["max"] == heights["min"] == heights["max"]
    aspect = widths["median"] / heights["median"]
    fit, why = "crop", f"images are {aspect:.2f} times as wide as high: the middle square holds what counts"
    if same:
        fit, why = "stretch", "all images are square and of one size"
    elif not 0.6 < aspect < 1.67:
        fit, why = "pad", f"images are {aspect:.2f} times as wide as high, and cropping would lose too much"
    planner.choose("image.fit", fit, why, aspect=round(aspect, 3))
    planner.choose("image.keep", 1.0, "the whole of it: what lies near the edge belongs to the picture")


def _choose_statistics(planner: Planner, origin: Origin | None) -> None:
    if origin is not None:
        for key, values in (("image.mean", origin.mean), ("image.std", origin.std)):
            channels, reason = settled(planner.recipe.image.channels), "what the weights were made with"
            if channels != len(values):  # their first layer is summed over the channels, and so sees their mean
                values, reason = (sum(values) / len(values),) * channels, f"{reason}, as a mean of the channels"
            planner.choose(key, values, reason)
        return
    mean, std = _statistics(planner)
    images = min(STATISTICS_SAMPLE, planner.train_count)
    planner.choose("image.mean", mean, "measured on training images", images=images)
    planner.choose("image.std", std, "measured on training images", images=images)


def _statistics(planner: Planner) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation per channel, of pixels in [0, 1], over evenly spaced training images."""
    image = planner.recipe.image
    pictures = [
        evaluation_pixels(
            planner.dataset.read(int(index)),
            size=settled(image.size),
            fit=settled(image.fit),
            channels=settled(image.channels),
            keep=settled(image.keep),
            range=settled(image.range),
        )
        for index in _spread(planner.dataset.indices("train"), STATISTICS_SAMPLE)
    ]
    values = np.stack(pictures).astype(np.float64) / 255.0
    mean, std = values.mean(axis=(0, 1, 2)), values.std(axis=(0, 1, 2))
    return tuple(round(float(m), 4) for m in mean), tuple(round(max(float(s), 1e-3), 4) for s in std)


def _spread(indices: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the indices, evenly spaced."""
    return indices[np.linspace(0, len(indices) - 1, min(most, len(indices))).astype(int)]
