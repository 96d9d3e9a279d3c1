"""The classical kernels, by name: one row of `KERNELS` each, with where it comes from.

`horizontal` means that it finds horizontal edges, so differences from row to row. Whole numbers are as the papers and
textbooks print them, unscaled; blurs are scaled to sum 1, so that a flat area keeps its brightness.
"""

from __future__ import annotations

import math

import numpy as np

from convsmith.errors import UsageError
from convsmith.networks.kernels.filtering import is_numbers, numbers
from convsmith.registry import Entry, Registry

LARGEST = 31


def kernel_named(text: str) -> tuple[str, np.ndarray]:
    """Read what a user wrote for a kernel: a name, a name with options, or its numbers.

    Args:
        text: `sobel-vertical`, `gabor:angle=45,wavelength=6`, or `-1 0 1 / -2 0 2 / -1 0 1`.

    Returns:
        What to call it, and float64 `[kh, kw]`.

    Raises:
        UsageError: an unknown name or option, or numbers that make no kernel.
    """
    if is_numbers(text):
        kernel = numbers(text)
        if max(kernel.shape) > LARGEST:
            raise UsageError(
                f"A kernel of {kernel.shape[0]}x{kernel.shape[1]} is more than anybody can look at.",
                mend=f"Give {LARGEST}x{LARGEST} at the most.",
            )
        return "your own", kernel
    name, _, listed = text.partition(":")
    options: dict[str, float | int] = {}
    for pair in filter(None, listed.split(",")):
        key, _, value = pair.partition("=")
        try:
            number = float(value)
        except ValueError:
            raise UsageError(
                f"--kernel {text}: {pair!r} is no option with a number.",
                mend="Write as in: gabor:angle=45,wavelength=6",
            ) from None
        options[key.strip()] = int(number) if number.is_integer() else number
    return text, KERNELS.build(name.strip(), **options)


def gaussian(size: int = 3, sigma: float | None = None) -> np.ndarray:
    """A bell that sums to 1.

    Args:
        size: its side, in taps.
        sigma: its width in pixels; None takes the binomial numbers of this size, whose width is `sqrt(size - 1) / 2`.
    """
    _check(size, sigma=sigma)
    if sigma is None:
        line = np.array([math.comb(size - 1, k) for k in range(size)], np.float64)
        bell = np.outer(line, line)
    else:
        x, y = _grid(size)
        bell = np.exp(-(x**2 + y**2) / (2 * sigma**2))
    return bell / bell.sum()


def gaussian_derivative(size: int = 7, sigma: float = 1.0, angle: float = 0.0) -> np.ndarray:
    """The slope of a bell: an edge of one width and direction. Its positive numbers sum to 1.

    Args:
        size: its side, in taps.
        sigma: the bell's width, in pixels.
        angle: direction of the slope in degrees: 0 finds vertical edges, 90 horizontal ones.
    """
    _check(size, sigma=sigma)
    x, y = _grid(size)
    turned = math.radians(angle)
    return _balanced((x * math.cos(turned) + y * math.sin(turned)) * np.exp(-(x**2 + y**2) / (2 * sigma**2)))


def laplacian_of_gaussian(size: int = 7, sigma: float = 1.0) -> np.ndarray:
    """The curvature of a bell, with a negative middle. It sums to 0, its positive numbers to 1.

    Args:
        size: its side, in taps.
        sigma: the bell's width, in pixels.
    """
    _check(size, sigma=sigma)
    x, y = _grid(size)
    squared = (x**2 + y**2) / (2 * sigma**2)
    return _balanced((squared - 1) * np.exp(-squared))


def gabor(
    size: int = 9,
    wavelength: float = 4.0,
    angle: float = 0.0,
    phase: float = 0.0,
    sigma: float = 2.0,
    aspect: float = 0.5,
) -> np.ndarray:
    """Stripes under a bell: they answer to texture of one width and direction.

    It sums to 0, so that a flat area gives 0, and its positive numbers sum to 1; the formula alone does neither.

    Args:
        size: its side, in taps.
        wavelength: of the stripes, in pixels.
        angle: from one stripe to the next, in degrees: 0 finds upright stripes, 90 level ones.
        phase: in degrees: 0 has a bright stripe in the middle, 90 an edge.
        sigma: the bell's width across the stripes, in pixels.
        aspect: the bell's width across over that along the stripes.
    """
    _check(size, sigma=sigma, wavelength=wavelength, aspect=aspect)
    x, y = _grid(size)
    turned = math.radians(angle)
    across = x * math.cos(turned) + y * math.sin(turned)
    along = y * math.cos(turned) - x * math.sin(turned)
    bell = np.exp(-(across**2 + (aspect * along) ** 2) / (2 * sigma**2))
    return _balanced(bell * np.cos(2 * math.pi * across / wavelength + math.radians(phase)))


def box(size: int = 3) -> np.ndarray:
    """The mean of all that it covers.

    Args:
        size: its side, in taps.
    """
    _check(size)
    return np.full((size, size), 1 / size**2)


def _fixed(rows: str) -> np.ndarray:
    return numbers(rows)


def identity() -> np.ndarray:
    return _fixed("0 0 0 / 0 1 0 / 0 0 0")


def edge_horizontal() -> np.ndarray:
    return _fixed("0 -1 0 / 0 0 0 / 0 1 0")


def edge_vertical() -> np.ndarray:
    return edge_horizontal().T


def edge_diagonal() -> np.ndarray:
    return _fixed("-1 0 0 / 0 0 0 / 0 0 1")


def line_horizontal() -> np.ndarray:
    return _fixed("-1 -1 -1 / 2 2 2 / -1 -1 -1")


def line_vertical() -> np.ndarray:
    return line_horizontal().T


def line_diagonal() -> np.ndarray:
    return _fixed("-1 -1 2 / -1 2 -1 / 2 -1 -1")


def prewitt_horizontal() -> np.ndarray:
    return _fixed("-1 -1 -1 / 0 0 0 / 1 1 1")


def prewitt_vertical() -> np.ndarray:
    return prewitt_horizontal().T


def sobel_horizontal() -> np.ndarray:
    return _fixed("-1 -2 -1 / 0 0 0 / 1 2 1")


def sobel_vertical() -> np.ndarray:
    return sobel_horizontal().T


def sobel_diagonal() -> np.ndarray:
    return _fixed("-2 -1 0 / -1 0 1 / 0 1 2")


def scharr_horizontal() -> np.ndarray:
    return _fixed("-3 -10 -3 / 0 0 0 / 3 10 3")


def scharr_vertical() -> np.ndarray:
    return scharr_horizontal().T


def laplacian() -> np.ndarray:
    return _fixed("0 1 0 / 1 -4 1 / 0 1 0")


def laplacian_8() -> np.ndarray:
    return _fixed("-1 -1 -1 / -1 8 -1 / -1 -1 -1")


def sharpen() -> np.ndarray:
    return _fixed("0 -1 0 / -1 5 -1 / 0 -1 0")


def emboss() -> np.ndarray:
    return _fixed("-2 -1 0 / -1 1 1 / 0 1 2")


_TEXTBOOK = "Gonzalez & Woods, Digital Image Processing"
_SOBEL = "Sobel & Feldman 1968; Duda & Hart 1973, p. 271"

KERNELS = Registry(
    "kernel",
    [
        Entry("identity", identity, "leaves the picture as it is"),
        Entry("edge-horizontal", edge_horizontal, "horizontal edges: the pixel below less the one above"),
        Entry("edge-vertical", edge_vertical, "vertical edges: the pixel to the right less the one to the left"),
        Entry("edge-diagonal", edge_diagonal, "edges that rise to the right: lower right less upper left"),
        Entry("prewitt-horizontal", prewitt_horizontal, "horizontal edges, over three columns alike", "Prewitt 1970"),
        Entry("prewitt-vertical", prewitt_vertical, "vertical edges, over three rows alike", "Prewitt 1970"),
        Entry("sobel-horizontal", sobel_horizontal, "horizontal edges, the middle column counting double", _SOBEL),
        Entry("sobel-vertical", sobel_vertical, "vertical edges, the middle row counting double", _SOBEL),
        Entry("sobel-diagonal", sobel_diagonal, "edges that rise to the right, smoothed along them", "Robinson 1977"),
        Entry(
            "scharr-horizontal", scharr_horizontal, "horizontal edges, alike in strength at every slant", "Scharr 2000"
        ),
        Entry("scharr-vertical", scharr_vertical, "vertical edges, alike in strength at every slant", "Scharr 2000"),
        Entry("line-horizontal", line_horizontal, "level lines one pixel thick", f"{_TEXTBOOK}, line detection"),
        Entry("line-vertical", line_vertical, "upright lines one pixel thick", f"{_TEXTBOOK}, line detection"),
        Entry("line-diagonal", line_diagonal, "lines that rise to the right", f"{_TEXTBOOK}, line detection"),
        Entry("laplacian", laplacian, "edges of every direction: the four neighbours less the pixel", _TEXTBOOK),
        Entry("laplacian-8", laplacian_8, "edges of every direction: the pixel less its eight neighbours", _TEXTBOOK),
        Entry("laplacian-of-gaussian", laplacian_of_gaussian, "blobs and edges of one width", "Marr & Hildreth 1980"),
        Entry("gaussian-derivative", gaussian_derivative, "edges of one width and direction", "Canny 1986"),
        Entry("gabor", gabor, "stripes of one width and direction", "Gabor 1946; Daugman 1985, equation 1"),
        Entry("gaussian", gaussian, "blurs, near pixels counting most", "Burt & Adelson 1983 (the binomial numbers)"),
        Entry("box", box, "blurs, all pixels counting alike", _TEXTBOOK),
        Entry("sharpen", sharpen, "the picture less its Laplacian: edges stand out", f"{_TEXTBOOK}, sharpening"),
        Entry("emboss", emboss, "the picture as a relief lit from the upper left"),
    ],
)


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows of the taps in pixels, 0 in the middle."""
    middle = (size - 1) / 2
    return np.meshgrid(np.arange(size) - middle, np.arange(size) - middle)


def _balanced(kernel: np.ndarray) -> np.ndarray:
    """Take the mean off, and scale so that the positive numbers sum to 1."""
    kernel = kernel - kernel.mean()
    return kernel / kernel[kernel > 0].sum()


def _check(size: int, **widths: float | None) -> None:
    if not isinstance(size, int) or not 2 <= size <= LARGEST:
        raise UsageError(
            f"A kernel's size is {size}.", mend=f"Give a whole number from 2 to {LARGEST}, better an odd one."
        )
    for name, width in widths.items():
        if width is not None and not (width > 0 and math.isfinite(width)):
            raise UsageError(f"A kernel's {name} is {width}.", mend=f"Give a {name} above 0.")
