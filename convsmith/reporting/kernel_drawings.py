"""How numbers become pictures in the kernel lab: which value is black, which is white, and which are cut.

The page's script draws by the same rules, so that what it shows at first does not change when it begins to run.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

import numpy as np
from PIL import Image

from convsmith.reporting.formats import MINUS, SPACE
from convsmith.reporting.pictures import address

#: A kernel whose numbers nearly cancel answers to differences, and its output is drawn around mid grey.
CANCELS = 0.1
#: Share of the values that the scale of such an output must hold; a single glint would make all the rest grey.
HELD = 0.995
MANY = 1000
#: What is smaller comes from rounding in float64, where numbers of a picture cancel.
NOTHING = 1e-9
LEVELS = 16
LARGEST = 8_000_000


@dataclass(frozen=True)
class Scale:
    """The values drawn black and white; what lies beyond is drawn as these are.

    Args:
        low, high: of them.
        signed: whether mid grey stands for 0.
    """

    low: float
    high: float
    signed: bool

    def grey(self, values: np.ndarray) -> np.ndarray:
        """Values as uint8."""
        share = (values - self.low) / (self.high - self.low or 1.0)
        return np.floor(np.clip(share, 0.0, 1.0) * 255 + 0.5).astype(np.uint8)

    def says(self, values: np.ndarray) -> str:
        """What black and white mean, and how many values lie beyond."""
        beyond = np.mean((values < self.low - 1e-9) | (values > self.high + 1e-9))
        cut = f" {100 * beyond:.1f}{SPACE}% of the values lie beyond; only the drawing cuts them." if beyond else ""
        low, high = figure(self.low), figure(self.high)
        middle = "mid grey is 0, " if self.signed else ""
        return f"Black is {low}, {middle}white is {high}.{cut}"


def scale(output: np.ndarray, kernel: np.ndarray | None, low: float, high: float) -> Scale:
    """Choose how an output is drawn.

    Args:
        output: the values.
        kernel: what made them; None where none did.
        low, high: the values that are black and white in the picture it was made of.

    Returns:
        Around 0 where the kernel's numbers nearly cancel; else what the kernel makes of flat black and flat white.
    """
    total = 1.0 if kernel is None else float(kernel.sum())
    strength = 1.0 if kernel is None else float(np.abs(kernel).sum())
    if abs(total) < CANCELS * strength or not strength:
        return around_zero(output)
    ends = sorted((low * total, high * total))
    return Scale(ends[0], ends[1], signed=False)


def around_zero(output: np.ndarray) -> Scale:
    """The scale of an output that can be negative, the same on both sides of 0."""
    sizes = np.sort(np.abs(output), axis=None)
    place = len(sizes) - 1 if len(sizes) <= MANY else math.floor(HELD * (len(sizes) - 1))
    most = float(sizes[place]) or float(sizes[-1]) or 1.0
    return Scale(-most, most, signed=True)


def png(values: np.ndarray, drawn: Scale, *, longest: int | None = None) -> str:
    """A picture `[H, W]` or `[H, W, 3]` as the `data:` address of a PNG, at most `longest` px where that is given."""
    picture = Image.fromarray(drawn.grey(values))
    if longest is not None and max(picture.size) > longest:
        picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return address(out.getvalue(), most=LARGEST)


def figure(value: float) -> str:
    """A number for people: whole ones in full, others to three decimals, or to three digits where they are small.

    Halves are rounded away from 0, as the page's script does.
    """
    value = 0.0 if abs(value) < NOTHING else float(value)
    if value.is_integer():
        return f"{value:.0f}".replace("-", MINUS)
    exact = Decimal(value)
    places = -3 if abs(value) >= 0.1 else exact.adjusted() - 2
    rounded = exact.quantize(Decimal(1).scaleb(places), ROUND_HALF_UP).normalize()
    written = f"{rounded:f}" if abs(value) >= 1e-6 else f"{rounded:e}".replace("e-0", "e-")
    return written.replace("-", MINUS)


def brief(value: float) -> str:
    """A number that has to fit into a pixel: with one decimal at the most from 10 on."""
    return figure(round(float(value), 1) if abs(value) >= 10 else float(value))


def shade(value: float, low: float, high: float) -> str:
    """The class of a pixel's cell: `g0` is black, `g16` white."""
    share = (value - low) / (high - low or 1.0)
    return f"g{math.floor(min(max(share, 0.0), 1.0) * LEVELS + 0.5)}"


def tint(value: float, most: float) -> str:
    """The class of a cell with a sign: `p8` is the strongest positive, `n8` the strongest negative, `p0` nothing."""
    level = math.floor(8 * min(abs(value) / (most or 1.0), 1.0) + 0.5)
    return f"{'n' if value < 0 and level else 'p'}{level}"
