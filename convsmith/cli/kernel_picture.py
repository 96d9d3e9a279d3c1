"""What IMAGE may be for `convsmith kernels`: a file, rows of numbers, an image of a named set, or a photo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convsmith.errors import DataError, UsageError

TABLES = (".csv", ".tsv", ".txt")
LARGEST_TABLE = 1024


@dataclass(frozen=True)
class LabPicture:
    """A picture as numbers.

    Args:
        name: what the user typed, or the file's name.
        values: float64 `[H, W]`, or `[H, W, 3]` in colours.
        low, high: the values that are black and white.
        note: its size and what was done to it.
    """

    name: str
    values: np.ndarray
    low: float
    high: float
    note: str


def open_picture(text: str, *, size: int, colour: bool) -> LabPicture:
    """Open what the user named.

    Args:
        text: `photo.jpg`, `numbers.csv`, `3 7 / 4 9`, `digits:7` (an image of a named set by its place, from 0),
            `flower` or `china`.
        size: the longer side in pixels at the most; larger pictures are made smaller. Numbers never are.
        colour: whether a colour picture keeps its channels; else it becomes grey.

    Raises:
        UsageError: it is none of these.
        DataError: the file cannot be read.
    """
    from convsmith.networks.kernels.filtering import is_numbers, numbers

    path = Path(text)
    if not path.exists() and is_numbers(text):
        return _table("your numbers", numbers(text, "picture"))
    if path.is_file() and path.suffix.lower() in TABLES:
        return _table(path.name, numbers(_text(path).replace("\t", " "), f"table {path.name}"))
    from convsmith.pipeline.given_picture import open_pixels

    return _picture(*open_pixels(text, also='"3 7 / 4 9" (rows of numbers), '), size, colour)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}.", mend="Save it as a text of numbers in UTF-8.") from None


def _table(name: str, values: np.ndarray) -> LabPicture:
    height, width = values.shape
    if max(values.shape) > LARGEST_TABLE:
        raise UsageError(
            f"A table of {height} x {width} numbers is too large.",
            mend=f"Give {LARGEST_TABLE} rows and columns at most.",
        )
    low, high = min(0.0, float(values.min())), float(values.max())
    return LabPicture(name, values, low, high if high > low else low + 1.0, f"{height} x {width} numbers")


def _picture(name: str, pixels: np.ndarray, size: int, colour: bool) -> LabPicture:
    """Decoded pixels `[H, W, C]` as a picture of at most `size` px."""
    from PIL import Image

    height, width = pixels.shape[:2]
    eight, colours = pixels.dtype == np.uint8, pixels.shape[2] == 3
    grey = Image.fromarray(pixels if colours else pixels[..., 0] if eight else pixels[..., 0].astype(np.float32))
    if colours and not colour:
        grey = grey.convert("L")
    if max(height, width) > size:
        grey.thumbnail((size, size), Image.Resampling.LANCZOS)
    values = np.asarray(grey, np.float64)
    low, high = (0.0, 255.0) if eight else (float(values.min()), float(values.max()))
    kind = "in colour" if values.ndim == 3 else "made grey" if colours else "grey"
    shape = f"{values.shape[0]} x {values.shape[1]} px, {kind}"
    note = shape if values.shape[:2] == (height, width) else f"{shape}, reduced from {height} x {width}"
    return LabPicture(name, values, low, high if high > low else low + 1.0, note)
