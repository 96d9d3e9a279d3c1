"""What a convolution and a pooling do, one number at a time: the arithmetic of the kernel lab, in plain numpy.

As in every network, the kernel is laid on the picture as it is written and not turned round first; mathematicians call
that a cross-correlation. All is computed in float64, so that pictures of whole numbers give exact sums. Places are
counted from 0, and negative or too large ones lie in the padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from convsmith.errors import UsageError

Padding = Literal["valid", "same", "zero", "reflect", "replicate", "circular"]
PoolKind = Literal["max", "average"]
PADDINGS: tuple[Padding, ...] = get_args(Padding)
POOLS: tuple[PoolKind, ...] = get_args(PoolKind)
_NUMPY_NAMES = {"same": "constant", "zero": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


@dataclass(frozen=True)
class Window:
    """One position of a kernel on a picture, and what becomes of it.

    Args:
        row, column: of the output.
        rows, columns: of the picture that the kernel's rows and columns lie on, `[kh]` and `[kw]`; those below 0 or
            beyond the picture are padding.
        patch: what lies under the kernel, `[kh, kw]` or `[kh, kw, C]`.
        kernel: `[kh, kw]`.
        products: patch times kernel, number by number.
        total: their sum, a number or one for each channel `[C]`: the output at this place.
    """

    row: int
    column: int
    rows: np.ndarray
    columns: np.ndarray
    patch: np.ndarray
    kernel: np.ndarray
    products: np.ndarray
    total: np.ndarray


def margins(size: int, kernel: int, padding: Padding, *, stride: int = 1, dilation: int = 1) -> tuple[int, int]:
    """How many pixels a padding adds before and after one side of a picture.

    `valid` adds none. `same` adds what makes the output `ceil(size / stride)` long, and so depends on the size
    (TensorFlow's rule; at stride 1 it is PyTorch's too). The others add half of what the kernel spans on either side,
    `p = dilation * (kernel - 1) / 2`, whatever the stride, as layers of PyTorch do; of an odd number the larger half
    comes after.

    Args:
        size: of the picture along this side, in pixels.
        kernel: taps along this side.
        padding: one of `PADDINGS`.
        stride, dilation: at least 1.

    Raises:
        UsageError: `reflect` or `circular` would need more pixels than there are.
    """
    _refuse_unknown("padding", padding, PADDINGS)
    span = dilation * (kernel - 1) + 1
    if padding == "valid":
        total = 0
    elif padding == "same":
        total = max((-(-size // stride) - 1) * stride + span - size, 0)
    else:
        total = span - 1
    before, after = total // 2, total - total // 2
    most = {"reflect": size - 1, "circular": size}.get(padding, after)
    if after > most:
        raise UsageError(
            f"Padding {padding} needs {after} px of the picture's other pixels on each side, but of {size} px it has "
            f"only {most} to give.",
            mend="Use padding zero or replicate, a smaller kernel, or less dilation.",
        )
    return before, after


def padded(
    image: np.ndarray, margin: int | tuple[tuple[int, int], tuple[int, int]], padding: Padding = "zero"
) -> np.ndarray:
    """Surround a picture: by zeros, its mirror image, its own edge, or its other end.

    Args:
        image: `[H, W]` or `[H, W, C]`.
        margin: pixels on every side, or before and after the rows and the columns.
        padding: one of `PADDINGS`; `reflect` does not repeat the edge, `replicate` repeats nothing else.
    """
    _refuse_unknown("padding", padding, PADDINGS)
    sides = ((margin, margin), (margin, margin)) if isinstance(margin, int) else margin
    if padding == "valid" or not any(map(any, sides)):
        return image
    beyond = ((0, 0),) * (image.ndim - 2)
    return np.pad(image, (*sides, *beyond), mode=_NUMPY_NAMES[padding])  # type: ignore[call-overload]


def convolve(
    image: np.ndarray, kernel: np.ndarray, *, padding: Padding = "valid", stride: int = 1, dilation: int = 1
) -> np.ndarray:
    """Lay a kernel on every place of a picture, multiply and add; each channel is treated by itself.

    Args:
        image: `[H, W]` or `[H, W, C]`, any numbers.
        kernel: `[kh, kw]`.
        padding: one of `PADDINGS`, see `margins`.
        stride: pixels from one place to the next.
        dilation: pixels from one tap of the kernel to the next; a kernel of 3 taps and dilation 2 spans 5 pixels.

    Returns:
        float64 `[H', W']` or `[H', W', C]`, with `H' = (H + padding - dilation * (kh - 1) - 1) // stride + 1`.

    Raises:
        UsageError: the kernel spans more than the picture, or `reflect` or `circular` lack pixels.
    """
    image, kernel, sides = _fitted(image, kernel, padding, stride, dilation)
    whole = padded(image, sides, padding)
    rows, columns = ((whole.shape[i] - dilation * (kernel.shape[i] - 1) - 1) // stride + 1 for i in (0, 1))
    output = np.zeros((rows, columns, *image.shape[2:]))
    for i, j in np.ndindex(kernel.shape):
        top, left = dilation * i, dilation * j
        seen = whole[top : top + stride * (rows - 1) + 1 : stride, left : left + stride * (columns - 1) + 1 : stride]
        output += kernel[i, j] * seen
    return output


def window(
    image: np.ndarray,
    kernel: np.ndarray,
    row: int,
    column: int,
    *,
    padding: Padding = "valid",
    stride: int = 1,
    dilation: int = 1,
) -> Window:
    """What `convolve` does at one place of its output.

    Args:
        image, kernel, padding, stride, dilation: as in `convolve`.
        row, column: of the output, from 0.

    Raises:
        UsageError: as `convolve`, and where the output has no such place.
    """
    image, kernel, sides = _fitted(image, kernel, padding, stride, dilation)
    whole = padded(image, sides, padding)
    places = []
    for axis, place in ((0, row), (1, column)):
        taps = stride * place + dilation * np.arange(kernel.shape[axis])
        if place < 0 or taps[-1] >= whole.shape[axis]:
            raise _no_such_place(
                row, column, convolve(image, kernel, padding=padding, stride=stride, dilation=dilation)
            )
        places.append(taps)
    patch = whole[np.ix_(*places)]
    products = patch * (kernel if image.ndim == 2 else kernel[..., None])
    rows, columns = (taps - before for taps, (before, _) in zip(places, sides, strict=True))
    return Window(row, column, rows, columns, patch, kernel, products, products.sum(axis=(0, 1)))


def pooled(image: np.ndarray, kind: PoolKind, size: int = 2, stride: int | None = None) -> np.ndarray:
    """Keep of every window its largest value or its mean; what is left over at the right and below is dropped.

    Args:
        image: `[H, W]` or `[H, W, C]`.
        kind: `max` or `average`.
        size: side of the window.
        stride: pixels from one window to the next; None is `size`, so that windows touch and do not overlap.

    Returns:
        float64 `[(H - size) // stride + 1, ...]`.

    Raises:
        UsageError: the window is larger than the picture.
    """
    return _reduced(_pool_windows(image, kind, size, stride), kind)


def pool_window(
    image: np.ndarray, kind: PoolKind, row: int, column: int, size: int = 2, stride: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The values that `pooled` looks at for one place, `[size, size]` or `[size, size, C]`, and what it makes of them.

    Raises:
        UsageError: as `pooled`, and where the output has no such place.
    """
    windows = _pool_windows(image, kind, size, stride)
    if not (0 <= row < windows.shape[0] and 0 <= column < windows.shape[1]):
        raise _no_such_place(row, column, windows)
    seen = windows[row, column]
    return np.moveaxis(seen, 0, -1) if image.ndim == 3 else seen, _reduced(windows[row, column], kind)


def numbers(text: str, what: str = "kernel") -> np.ndarray:
    """Read rows of numbers, such as `-1 0 1 / -2 0 2 / -1 0 1`; a line break ends a row as a slash does.

    Args:
        text: numbers apart by spaces or commas.
        what: what they are, for the message.

    Returns:
        float64 `[rows, columns]`.

    Raises:
        UsageError: something is no number, is not finite, or the rows differ in length.
    """
    rows: list[list[float]] = []
    for line in text.replace("/", "\n").splitlines():
        try:
            row = [float(word) for word in (line.split(",") if "," in line else line.split())]
        except ValueError:
            raise UsageError(
                f"The {what} {line.strip()!r} holds something that is no number.",
                mend="Write rows of numbers, a slash between rows: -1 0 1 / -2 0 2 / -1 0 1",
            ) from None
        if row:
            rows.append(row)
    lengths = [len(row) for row in rows]
    if not rows or len(set(lengths)) > 1:
        found = f"rows of {', '.join(map(str, lengths))} numbers" if rows else "no numbers"
        raise UsageError(
            f"The {what} has {found}; all rows must have the same length.",
            mend="Put a slash between rows, as in: -1 0 1 / -2 0 2 / -1 0 1",
        )
    read = np.array(rows)
    if not np.isfinite(read).all():
        raise UsageError(f"The {what} has numbers that are not finite.", mend="Leave nan and inf out.")
    return read


def is_numbers(text: str) -> bool:
    """Whether a text is meant as rows of numbers rather than as a name: its first word is a number."""
    words = text.replace("/", " ").replace(",", " ").split()
    try:
        return bool(words) and bool(np.isfinite(float(words[0])))
    except ValueError:
        return False


def _fitted(
    image: np.ndarray, kernel: np.ndarray, padding: Padding, stride: int, dilation: int
) -> tuple[np.ndarray, np.ndarray, tuple[tuple[int, int], tuple[int, int]]]:
    """Picture and kernel as float64, and the margins of both sides, once the kernel is known to fit."""
    for name, value in (("stride", stride), ("dilation", dilation)):
        if value < 1:
            raise UsageError(f"A {name} of {value} makes no sense.", mend=f"Give a {name} of 1 or more.")
    if image.ndim not in (2, 3) or kernel.ndim != 2 or not kernel.size or not image.size:
        raise ValueError(f"image {list(image.shape)}, kernel {list(kernel.shape)}; expected [H, W(, C)] and [kh, kw]")
    height, width = (
        margins(image.shape[i], kernel.shape[i], padding, stride=stride, dilation=dilation) for i in (0, 1)
    )
    for i, side in enumerate((height, width)):
        span = dilation * (kernel.shape[i] - 1) + 1
        if image.shape[i] + sum(side) < span:
            spread = f" with dilation {dilation}" if dilation > 1 else ""
            raise UsageError(
                f"A kernel of {kernel.shape[0]}x{kernel.shape[1]}{spread} spans {span} px, but the picture is "
                f"{image.shape[0]}x{image.shape[1]} px.",
                mend="Use padding zero, a smaller kernel, or less dilation.",
            )
    return image.astype(np.float64), kernel.astype(np.float64), (height, width)


def _pool_windows(image: np.ndarray, kind: PoolKind, size: int, stride: int | None) -> np.ndarray:
    """All windows, `[H', W', (C,) size, size]`."""
    _refuse_unknown("pooling", kind, POOLS)
    step = size if stride is None else stride
    if size < 1 or step < 1:
        raise UsageError(f"Pooling of {size} px every {step} px makes no sense.", mend="Give 1 or more of each.")
    if size > min(image.shape[:2]):
        raise UsageError(
            f"A pooling window of {size}x{size} is larger than what it pools, {image.shape[0]}x{image.shape[1]}.",
            mend=f"Use a window of {min(image.shape[:2])} px at the most.",
        )
    return sliding_window_view(image.astype(np.float64), (size, size), axis=(0, 1))[::step, ::step]  # type: ignore[call-overload]


def _reduced(windows: np.ndarray, kind: PoolKind) -> np.ndarray:
    return windows.max(axis=(-2, -1)) if kind == "max" else windows.mean(axis=(-2, -1))


def _refuse_unknown(what: str, word: str, known: Sequence[str]) -> None:
    if word not in known:
        raise UsageError(f"There is no {what} named {word!r}.", mend=f"Known: {', '.join(known)}.")


def _no_such_place(row: int, column: int, output: np.ndarray) -> UsageError:
    height, width = output.shape[:2]
    return UsageError(
        f"The output is {height}x{width} and has no row {row}, column {column}.",
        mend=f"Rows go from 0 to {height - 1}, columns from 0 to {width - 1}.",
    )
