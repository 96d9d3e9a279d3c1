"""How large what a window leaves is, with the sum written out, and the values that would make it fit.

A window is what a convolution or a pooling moves along one side of the maps. Rows and columns are each a side.

Source: Dumoulin & Visin 2016, "A guide to convolution arithmetic for deep learning", relationships 6, 8 and 14.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Window:
    """What moves along one side.

    Args:
        kernel: positions it reads.
        stride: positions from one place to the next; of a transposed convolution, what it multiplies the side by.
        padding: positions added at either end.
        dilation: from one position that it reads to the next.
        kind: a transposed convolution goes the other way.
        ceil: whether a last window that reaches over the end counts, as poolings can be told.
        extra: positions that a transposed convolution adds at the end alone (`output_padding`).
    """

    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    kind: Literal["convolution", "pooling", "transposed"] = "convolution"
    ceil: bool = False
    extra: int = 0

    @property
    def span(self) -> int:
        """Positions from the first that it reads to the last: a kernel of 3 with dilation 2 spans 5."""
        return self.dilation * (self.kernel - 1) + 1

    def after(self, size: int) -> int:
        """Positions that it leaves of `size`; 0 or less where it does not fit."""
        if self.kind == "transposed":
            return (size - 1) * self.stride - 2 * self.padding + self.span + self.extra
        whole, rest = divmod(size + 2 * self.padding - self.span, self.stride)
        if self.ceil and rest and (whole + 1) * self.stride < size + self.padding:
            whole += 1  # unless that window would begin in the padding after the end, as PyTorch has it
        return whole + 1

    def unread(self, size: int) -> tuple[int, int]:
        """Positions of `size` after the last window, and of every `stride` positions those that no window reads."""
        if self.kind == "transposed":
            return 0, 0
        end = (self.after(size) - 1) * self.stride - self.padding + self.span
        read = {place * self.dilation % self.stride for place in range(self.kernel)}
        return max(0, size - end), self.stride - len(read)


def explain(window: Window, size: int, *, what: str = "row", unread: bool = True) -> str:
    """The sum by which a side shrinks or grows, its result, and what is left unread.

    Args:
        window: what moves along the side.
        size: positions of the side.
        what: one of them is called: "row", "column" or "row and column".
        unread: whether to tell what no window reads.

    Example:
        >>> explain(Window(7, stride=2, padding=3), 224)
        '(224 + 2*3 - 1*(7-1) - 1)/2 + 1 = 112.5, rounded down to 112: the last row of the padding is not read'
    """
    result = window.after(size)
    if window.kind == "transposed":
        parts = f"({size} - 1)*{window.stride} - 2*{window.padding} + {window.dilation}*({window.kernel}-1)"
        sum_ = f"{parts} + {window.extra} + 1 = {result}"
        return sum_ if result > 0 else f"{sum_}: nothing is left"
    wide = size + 2 * window.padding - window.span
    exact = wide / window.stride + 1
    sum_ = f"({size} + 2*{window.padding} - {window.dilation}*({window.kernel}-1) - 1)/{window.stride} + 1 = "
    sum_ += f"{exact:.2f}".rstrip("0").rstrip(".")
    if wide < 0:
        return f"{sum_}: a window that spans {window.span} does not fit in {size + 2 * window.padding}"
    if wide % window.stride:
        sum_ += f", rounded {'up' if result > exact else 'down'} to {result}"
    return f"{sum_}{_unread(window, size, what) if unread else ''}"


def explain_sides(windows: Sequence[Window], sizes: Sequence[int], *, unread: bool = True) -> str:
    """`explain` for rows and columns; once where both are alike."""
    (down, across), (height, width) = windows, sizes
    if (down, height) == (across, width):
        return explain(down, height, what="row and column", unread=unread)
    rows, columns = explain(down, height, unread=unread), explain(across, width, what="column", unread=unread)
    return f"rows {rows}; columns {columns}"


def padding_for(window: Window, size: int, wanted: int) -> int | None:
    """The least padding with which a window leaves `wanted` of `size` positions; None where none does.

    A pooling takes at most half its kernel, and of a convolution no more than its span is of use.
    """
    most = window.kernel // 2 if window.kind == "pooling" else window.span
    fits = (padding for padding in range(most + 1) if replace(window, padding=padding).after(size) == wanted)
    return next(fits, None)


def least_size(window: Window) -> int:
    """The smallest side that a window fits in."""
    return max(1, window.span - 2 * window.padding)


def nearest(sizes: Sequence[int], size: int) -> int | None:
    """The one of some sizes that is closest to another; the larger of two."""
    return min(sizes, key=lambda each: (abs(each - size), -each), default=None)


def _unread(window: Window, size: int, what: str) -> str:
    """What no window reads, in words that follow the sum; empty where all is read."""
    left, gaps = window.unread(size)
    many = what.replace("row", "rows").replace("column", "columns")
    if gaps:
        return f": of every {window.stride} {many}, {gaps} {'is' if gaps == 1 else 'are'} passed over"
    padded = (window.after(size) - 1) * window.stride + window.span
    rest = left or max(0, size + 2 * window.padding - padded)
    if not rest:
        return ""
    of = "" if left else " of the padding"
    if rest == 1:
        return f": the last {what}{of} {'are' if ' and ' in what else 'is'} not read"
    return f": the last {rest} {many}{of} are not read"
