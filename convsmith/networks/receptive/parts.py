"""The factors of a tensor's dimensions, and how what they draw on moves from one position to the next.

A dimension of 14 x 14 tokens has two factors, rows and columns of a map; one of channels has one, along which nothing
moves. Keeping them apart is what lets a map be flattened, cut into windows and put together again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

ROWS, COLUMNS = 0, 1
CUT = 4
"""The bit of `Part.places` that says that positions were left out by slicing; 1 and 2 stand for rows and columns."""

Move = tuple[int, int]
"""`(period, advance)`: after so many positions the interval has gone on by so many pixels; `(1, 32)` at stride 32."""
STILL: Move = (1, 0)


@dataclass(frozen=True)
class Part:
    """One factor of a dimension.

    Args:
        extent: positions.
        places: bits: 1 where it holds rows of a map, 2 where columns, 4 where some were left out.
        moves: for rows and for columns of the image; None where positions do not move evenly.
    """

    extent: int
    places: int = 0
    moves: tuple[Move | None, Move | None] = (STILL, STILL)

    def moving(self, axis: int, move: Move | None) -> Part:
        """The same factor, moving otherwise along rows, or columns."""
        return replace(self, moves=(move, self.moves[1]) if axis == ROWS else (self.moves[0], move))


Parts = tuple[Part, ...]
"""All factors of a dimension, outer ones first."""


def places_of(parts: Iterable[Part]) -> int:
    """The bits of all of them."""
    places = 0
    for part in parts:
        places |= part.places
    return places


def still(parts: Iterable[Part], axis: int) -> bool:
    """Whether all positions draw on the same rows, or columns."""
    return all(part.moves[axis] == STILL for part in parts)


def disordered(parts: Sequence[Part]) -> tuple[Move | None, Move | None]:
    """How positions move that were put into an order of their own."""
    return (STILL if still(parts, ROWS) else None), (STILL if still(parts, COLUMNS) else None)


def merged(parts: Sequence[Part]) -> Part:
    """One factor in place of several."""
    whole = parts[-1]
    for part in reversed(parts[:-1]):
        rows, columns = _merged(part, whole, ROWS), _merged(part, whole, COLUMNS)
        whole = Part(part.extent * whole.extent, part.places | whole.places, (rows, columns))
    return whole


def _merged(outer: Part, inner: Part, axis: int) -> Move | None:
    one, two = outer.moves[axis], inner.moves[axis]
    if outer.extent == 1:
        return two
    if inner.extent == 1:
        return one
    if one is None or two is None:
        return None
    if one[0] == 1 and inner.extent % two[0] == 0 and one[1] == two[1] * inner.extent // two[0]:
        return two
    return one[0] * inner.extent, one[1]


def split(part: Part, inner: int) -> tuple[Part, Part]:
    """The two factors of one, the inner one with as many positions as given."""
    (outer_rows, rows), (outer_columns, columns) = (_split(move, inner) for move in part.moves)
    outer = Part(part.extent // inner, part.places, (outer_rows, outer_columns))
    return outer, Part(inner, part.places, (rows, columns))


def _split(move: Move | None, inner: int) -> tuple[Move | None, Move | None]:
    if move is None or inner % move[0]:
        return None, None
    return (1, move[1] * inner // move[0]), move


def dealt(parts: Sequence[Part], sizes: Sequence[int]) -> list[Parts]:
    """Divide factors, in their order, among dimensions of these sizes."""
    queue, made = list(parts), []
    for size in sizes:
        taken: list[Part] = []
        if size == 1 and queue and queue[0].extent == 1:
            taken.append(queue.pop(0))
        while size > 1:
            part = queue.pop(0)
            if part.extent > size and part.extent % size == 0:
                part, rest = split(part, part.extent // size)
                queue.insert(0, rest)
            if size % part.extent:
                return [(Part(size, places_of(parts), disordered(parts)),) for size in sizes]
            size //= part.extent
            taken.append(part)
        made.append(tuple(taken) or (Part(1),))
    made[-1] += tuple(queue)
    return made


def refined(options: Sequence[Parts]) -> list[Parts]:
    """The same dimension's factors as several tensors see them, cut alike where that is possible, else uncut."""
    if len({tuple(part.extent for part in parts) for parts in options}) == 1:
        return list(options)
    options = [tuple(part for part in parts if part.extent > 1) or (merged(parts),) for parts in options]
    total = math.prod(part.extent for part in options[0])
    inner = sorted({math.prod(part.extent for part in parts[i:]) for parts in options for i in range(1, len(parts))})
    if any(large % small for small, large in pairwise([*inner, total])):
        return [(merged(parts),) for parts in options]
    made = []
    for parts in options:
        cut: list[Part] = []
        size = total
        for part in parts:
            outermost = size
            size //= part.extent
            for border in [border for border in reversed(inner) if size < border < outermost]:
                outer, part = split(part, border // size)
                cut.append(outer)
            cut.append(part)
        made.append(tuple(cut))
    return made


def corresponding(old: Sequence[int], new: Sequence[int]) -> list[tuple[range, range]]:
    """Cut two shapes of as many positions into runs of dimensions that correspond.

    A length of 1 that only one of them has goes with the dimension before it.
    """
    made = []
    i = j = 0
    while i < len(old) or j < len(new):
        a, b = i, j
        left = right = 1
        if i < len(old):
            left, i = old[i], i + 1
        if j < len(new):
            right, j = new[j], j + 1
        while left != right:
            if left < right:
                left, i = left * old[i], i + 1
            else:
                right, j = right * new[j], j + 1
        while i < len(old) and old[i] == 1 and not (j < len(new) and new[j] == 1):
            i += 1
        while j < len(new) and new[j] == 1 and not (i < len(old) and old[i] == 1):
            j += 1
        made.append((range(a, i), range(b, j)))
    return made
