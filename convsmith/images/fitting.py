"""From decoded pixels to those that a network sees: one size, one depth, one number of channels.

Everything that trains, predicts, serves or evaluates calls `evaluation_pixels`; its rules are of the version
`decode.RULES` too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import numpy as np
from PIL import Image

from convsmith.errors import DataError, UsageError

Fit = Literal["crop", "pad", "stretch"]

_RANGE = "Name the values that become black and white: --set image.range=[LOW,HIGH]."


def evaluation_pixels(
    image: np.ndarray,
    *,
    size: int,
    fit: Fit,
    channels: int,
    keep: float = 1.0,
    range: tuple[float, float] | None = None,
) -> np.ndarray:
    """Bring a decoded picture to the size and channels a network takes.

    Values beyond 8 bits are scaled first: round(255 (v - low) / (high - low)), cut to 0 and 255. Resampling is Pillow's
    bicubic, whose kernel widens with the reduction, so nothing aliases. `crop` takes the central square whose side is
    `keep` of the shorter side, in one resampling; `pad` scales the longer side and centres it on black; `stretch`
    scales both sides, whatever the shape. RGB becomes grey by ITU-R 601 luma before resampling, grey becomes RGB by
    repetition after it. A picture that already fits comes back with its own bytes.

    Args:
        image: uint8, uint16 or float32 `[H, W, C]`, C in {1, 3}.
        size: the side of the square, in pixels.
        fit: `crop`, `pad` or `stretch`.
        channels: 1 or 3.
        keep: share of the shorter side that `crop` keeps, above 0 and at most 1.
        range: the values that become 0 and 255; uint8 needs none and is left alone.

    Returns:
        uint8 `[size, size, channels]`, contiguous.

    Raises:
        DataError: values beyond 8 bits and no range.
        UsageError: a `keep` or a range that makes no sense.
    """
    if fit not in ("crop", "pad", "stretch"):
        raise ValueError(f"fit is {fit!r}; expected crop, pad or stretch")
    if image.dtype not in (np.uint8, np.uint16, np.float32) or image.ndim != 3 or image.shape[2] not in (1, 3):
        raise ValueError(f"image is {image.dtype} {list(image.shape)}; expected uint8 [H, W, 1] or [H, W, 3]")
    if not 0 < keep <= 1:
        raise UsageError(f"image.keep is {keep}.", mend="Give a share of the shorter side, above 0 and at most 1.")
    if keep != 1 and fit != "crop":
        raise UsageError(
            f"image.keep is {keep}, but fit {fit} keeps the whole picture.", mend="Leave keep at 1, or take fit crop."
        )
    if image.dtype != np.uint8:
        image = _scaled(image, range)
    if channels == 1 and image.shape[2] == 3:
        image = np.asarray(Image.fromarray(image).convert("L"))[..., None]
    if image.shape[:2] != (size, size) or keep != 1:
        image = _resize(image, size, fit, keep)
    if channels == 3 and image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    return np.ascontiguousarray(image)


def value_range(images: Iterable[np.ndarray]) -> tuple[float, float]:
    """Find the values that become 0 and 255: the 0.1 and 99.9 percentiles of all 16-bit pixels together.

    The percentiles are exact (inverted distribution function), from a count of each of the 65,536 values.

    Args:
        images: as `decode` gives them, one at a time; those that are not uint16 have no say.

    Raises:
        DataError: there is no 16-bit pixel.
    """
    counts = np.zeros(2**16, np.int64)
    for image in images:
        if image.dtype == np.uint16:
            counts += np.bincount(image.ravel(), minlength=2**16)
    total = int(counts.sum())
    if not total:
        raise DataError("There is no 16-bit picture to take a range of values from.", mend=_RANGE)
    below = np.cumsum(counts)
    low = int(np.searchsorted(below, math.ceil(total / 1000)))
    high = int(np.searchsorted(below, total - total // 1000))
    return float(low), float(max(high, low + 1))


def _scaled(image: np.ndarray, limits: tuple[float, float] | None) -> np.ndarray:
    if limits is None:
        raise DataError(f"A picture of {image.dtype} values has no range to be scaled from.", mend=_RANGE)
    low, high = limits
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(f"image.range is [{low}, {high}].", mend="Give two numbers, the lower one first.")
    if image.dtype == np.uint16:  # the same rule by table: a hundred times fewer sums
        return _scale(np.arange(2**16, dtype=np.float64), low, high)[image]
    return _scale(image.astype(np.float64), low, high)


def _scale(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def _resize(image: np.ndarray, size: int, fit: Fit, keep: float) -> np.ndarray:
    height, width, channels = image.shape
    picture = Image.fromarray(image[..., 0] if channels == 1 else image)
    if fit == "pad":
        longest = max(height, width)
        inner = (max(1, round(width * size / longest)), max(1, round(height * size / longest)))
        canvas = Image.new(picture.mode, (size, size))
        canvas.paste(picture.resize(inner, Image.Resampling.BICUBIC), ((size - inner[0]) // 2, (size - inner[1]) // 2))
        picture = canvas
    else:
        side_x, side_y = (width, height) if fit == "stretch" else (keep * min(width, height),) * 2
        left, top = (width - side_x) / 2, (height - side_y) / 2
        box = (left, top, left + side_x, top + side_y)
        picture = picture.resize((size, size), Image.Resampling.BICUBIC, box=box)
    return np.asarray(picture).reshape(size, size, channels)
