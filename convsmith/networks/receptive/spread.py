"""From which rows and columns of the image the positions of a tensor draw, and what operations do with that.

A tensor's `Spread` gives, for rows and for columns, the first and the last one that each position draws on, as two
arrays that have the tensor's dimensions, of length 1 where all positions along a dimension draw on the same. Beside
them stands how the interval moves from one position to the next, so that it can be followed past the border of a map
into its padding: there, intervals reach outside the image. That is the receptive field as the literature means it,
which does not depend on the image's size. Where positions do not move evenly (windows that wrap round, uneven adaptive
pooling), padding adds nothing, and intervals end at the image's border.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from convsmith.networks.receptive.parts import (
    COLUMNS,
    CUT,
    ROWS,
    STILL,
    Move,
    Part,
    Parts,
    corresponding,
    dealt,
    disordered,
    merged,
    places_of,
    refined,
    still,
)
from convsmith.networks.receptive.taps import Taps

NOWHERE = 1 << 29
"""The first row of an interval that is empty; its last one is the negative."""
MOST = 1 << 24
"""Numbers in one array at the most, 64 MiB: pairs of 4,096 tokens."""


class UnfollowedError(Exception):
    """What an operation draws on is not known; the message says why."""


@dataclass(frozen=True)
class Reach:
    """Rows, or columns, of the image that each position draws on.

    Args:
        first, last: int32 arrays with the tensor's dimensions, of length 1 where a dimension makes no difference.
        mixed: positions of a whole map were mixed on the way, so that all draw on the same.
    """

    first: np.ndarray
    last: np.ndarray
    mixed: bool = False


@dataclass(frozen=True)
class Spread:
    """What each position of a tensor draws on.

    Args:
        dims: the factors of each dimension.
        reach: of rows and of columns.
        sides: of the image, px.
    """

    dims: tuple[Parts, ...]
    reach: tuple[Reach, Reach]
    sides: tuple[int, int]

    @property
    def shape(self) -> tuple[int, ...]:
        """Positions along each dimension."""
        return tuple(math.prod(part.extent for part in parts) for parts in self.dims)

    @property
    def places(self) -> int:
        """Bits for rows and columns of a map that are told apart in some dimension."""
        return places_of(part for parts in self.dims for part in parts) & 3

    def still(self, axis: int) -> bool:
        """Whether all positions draw on the same rows, or columns, wherever they are."""
        return all(still(parts, axis) for parts in self.dims)

    def placed(self, dim: int) -> bool:
        """Whether a dimension is of places, or positions along it draw on different rows or columns."""
        parts = self.dims[dim]
        return bool(places_of(parts)) or not (still(parts, ROWS) and still(parts, COLUMNS))

    def moved(self, dim: int) -> bool:
        """Whether positions along a dimension may draw on different rows or columns."""
        return not (still(self.dims[dim], ROWS) and still(self.dims[dim], COLUMNS))

    def pooled(self) -> bool:
        """Whether all of a map was mixed, as by global pooling or attention, so that all positions see the same."""
        return all(self.still(axis) and self.reach[axis].mixed for axis in (ROWS, COLUMNS))


def of_image(shape: Sequence[int]) -> Spread:
    """Each pixel of `[N, C, H, W]` draws on itself."""
    batch, channels, height, width = shape
    rows = np.arange(height, dtype=np.int32).reshape(1, 1, -1, 1)
    columns = np.arange(width, dtype=np.int32).reshape(1, 1, 1, -1)
    dims = (Part(batch),), (Part(channels),), (Part(height, 1, ((1, 1), STILL)),), (Part(width, 2, (STILL, (1, 1))),)
    return Spread(dims, (Reach(rows, rows), Reach(columns, columns)), (height, width))


def slide(spread: Spread, dim: int, taps: Taps) -> Spread:
    """Make each position along a dimension out of several, as convolution, pooling, slicing and enlarging do."""
    part = merged(spread.dims[dim])
    reaches, moves = [], []
    for axis in (ROWS, COLUMNS):
        reach, move = spread.reach[axis], part.moves[axis]
        if taps.pools:
            reach = replace(reach, mixed=reach.mixed or mixes(spread, [dim], axis))
        if move == STILL:
            reaches.append(reach)
            moves.append(STILL)
            continue
        first = _gathered(reach.first, dim, part.extent, move, taps, NOWHERE).min(dim + 1)
        last = _gathered(reach.last, dim, part.extent, move, taps, -NOWHERE).max(dim + 1)
        reaches.append(Reach(first, last, reach.mixed))
        moves.append(STILL if taps.pools else _slid(move, taps, first, last, dim))
    new = Part(len(taps.index), 0 if taps.pools else part.places, (moves[0], moves[1]))
    return _settled(Spread(_with(spread.dims, dim, (new,)), (reaches[0], reaches[1]), spread.sides))


def picked(spread: Spread, dim: int, index: np.ndarray) -> Spread:
    """Take positions along a dimension at an even step; those outside are padding."""
    if not spread.placed(dim):
        return resized(spread, dim, len(index))
    step = int(index[1] - index[0]) if len(index) > 1 else 1
    made = slide(spread, dim, Taps(index[:, None], shift=step))
    low, high = sorted((int(index[0]), int(index[-1])))
    if low < abs(step) and high + abs(step) >= spread.shape[dim]:
        return made
    (part,) = made.dims[dim]
    return replace(made, dims=_with(made.dims, dim, (replace(part, places=part.places | CUT),)))


def resized(spread: Spread, dim: int, length: int) -> Spread:
    """Give a dimension that makes no difference another number of positions."""
    return replace(spread, dims=_with(spread.dims, dim, (Part(length),)))


def reduced(spread: Spread, dims: Sequence[int], *, keep: bool, mixing: bool = False) -> Spread:
    """Mix all positions along dimensions.

    Args:
        dims: along which; counted from the end where negative.
        keep: they stay, at length 1; else they go.
        mixing: they keep their length, since each position gets something of all others, as by softmax.
    """
    along = sorted({dim % len(spread.dims) for dim in dims})
    reaches = []
    for axis in (ROWS, COLUMNS):
        reach, mixed = spread.reach[axis], mixes(spread, along, axis)
        first, last = reach.first.min(tuple(along), keepdims=True), reach.last.max(tuple(along), keepdims=True)
        reaches.append(Reach(first, last, reach.mixed or mixed))
    left = list(spread.dims)
    for dim in along:
        left[dim] = (Part(spread.shape[dim], places_of(spread.dims[dim])),) if mixing else (Part(1),)
    made = _settled(Spread(tuple(left), (reaches[0], reaches[1]), spread.sides))
    return made if keep or mixing else squeezed(made, along)


def squeezed(spread: Spread, dims: Collection[int]) -> Spread:
    """Leave out dimensions of length 1; a map of one position is pooled by that."""
    out = {dim % len(spread.dims) for dim in dims}
    left = tuple(parts for dim, parts in enumerate(spread.dims) if dim not in out)
    rows, columns = (
        Reach(_squeezed(reach.first, out), _squeezed(reach.last, out), reach.mixed or mixes(spread, out, axis))
        for axis, reach in enumerate(spread.reach)
    )
    return _settled(Spread(left, (rows, columns), spread.sides))


def unsqueezed(spread: Spread, dim: int) -> Spread:
    """Put a dimension of length 1 before dimension `dim`."""
    dims = (*spread.dims[:dim], (Part(1),), *spread.dims[dim:])
    rows, columns = (
        replace(reach, first=np.expand_dims(reach.first, dim), last=np.expand_dims(reach.last, dim))
        for reach in spread.reach
    )
    return Spread(dims, (rows, columns), spread.sides)


def permuted(spread: Spread, order: Sequence[int]) -> Spread:
    """Put dimensions into another order."""
    order = [dim % len(spread.dims) for dim in order]
    rows, columns = (
        replace(reach, first=reach.first.transpose(order), last=reach.last.transpose(order)) for reach in spread.reach
    )
    return Spread(tuple(spread.dims[dim] for dim in order), (rows, columns), spread.sides)


def expanded(spread: Spread, shape: Sequence[int]) -> Spread:
    """Repeat along dimensions of length 1, and put new ones before."""
    spread = _aligned(spread, len(shape))
    dims = tuple(
        parts if size == old else (Part(size),)
        for parts, old, size in zip(spread.dims, spread.shape, shape, strict=True)
    )
    return _settled(Spread(dims, spread.reach, spread.sides))


def reshaped(spread: Spread, shape: Sequence[int]) -> Spread:
    """Read the same positions, in their order, as a tensor of another shape."""
    dims: list[Parts] = []
    reaches = list(spread.reach)
    lengths: tuple[list[int], list[int]] = ([], [])
    for old, new in corresponding(spread.shape, shape):
        sizes = [shape[dim] for dim in new]
        dims += dealt([part for dim in old for part in spread.dims[dim]], sizes) if sizes else []
        for axis, reach in enumerate(reaches):
            if all(reach.first.shape[dim] == 1 for dim in old):
                lengths[axis].extend([1] * len(new))
                continue
            full = [spread.shape[dim] if dim in old else length for dim, length in enumerate(reach.first.shape)]
            if math.prod(full) > MOST:
                raise UnfollowedError(f"a map of {math.prod(full):,} positions is too large")
            first, last = np.broadcast_to(reach.first, full), np.broadcast_to(reach.last, full)
            reaches[axis] = replace(reach, first=first, last=last)
            lengths[axis].extend(sizes)
    rows, columns = (
        replace(reach, first=reach.first.reshape(sizes), last=reach.last.reshape(sizes))
        for reach, sizes in zip(reaches, lengths, strict=True)
    )
    return _settled(Spread(tuple(dims), (rows, columns), spread.sides))


def joined(spreads: Sequence[Spread], shape: Sequence[int]) -> Spread:
    """Combine tensors position by position, lengths of 1 repeated: the union of what they draw on.

    Args:
        spreads: one or more.
        shape: of the result, to which all can be expanded.
    """
    if len(spreads) == 1:
        return expanded(spreads[0], shape)
    aligned = [_aligned(spread, len(shape)) for spread in spreads]
    dims: list[Parts] = []
    offers: list[list[Parts]] = []
    for dim, size in enumerate(shape):
        options = [spread.dims[dim] for spread in aligned if spread.shape[dim] == size]
        offers.append(refined(options) if options else [(Part(size),)])
        alike = zip(*offers[-1], strict=True)
        dims.append(tuple(replace(parts[0], places=places_of(parts)) for parts in alike))
    sides, reaches = aligned[0].sides, []
    for axis in (ROWS, COLUMNS):
        each = [spread.reach[axis] for spread in aligned]
        mixed = any(reach.mixed for reach in each)
        all_of_it = next(
            (s.reach[axis] for s in aligned if s.still(axis) and _covers(s.reach[axis], sides[axis])), None
        )
        if all_of_it is not None:
            dims = [tuple(part.moving(axis, STILL) for part in parts) for parts in dims]
            reaches.append(replace(all_of_it, mixed=mixed))
            continue
        lengths = np.broadcast_shapes(*(reach.first.shape for reach in each))
        if math.prod(lengths) > MOST:
            raise UnfollowedError(f"{math.prod(lengths):,} pairs of positions are too many")
        first, last = each[0].first, each[0].last
        for reach in each[1:]:
            first, last = np.minimum(first, reach.first), np.maximum(last, reach.last)
        reaches.append(Reach(first, last, mixed))
        for dim, parts in enumerate(dims):
            dims[dim] = _moving(parts, offers[dim], axis, first, last, dim)
    return _settled(Spread(tuple(dims), (reaches[0], reaches[1]), sides))


def surrounded(spread: Spread, dim: int, before: int, after: int) -> Spread:
    """Put positions that draw on nothing before and after those along a dimension."""
    length = spread.shape[dim]
    widths = [(0, 0)] * len(spread.dims)
    widths[dim] = (before, after)
    reaches = []
    for reach in spread.reach:
        first, last = (
            np.repeat(array, length, dim) if array.shape[dim] == 1 else array for array in (reach.first, reach.last)
        )
        first, last = np.pad(first, widths, constant_values=NOWHERE), np.pad(last, widths, constant_values=-NOWHERE)
        reaches.append(Reach(first, last, reach.mixed))
    part = Part(before + length + after, places_of(spread.dims[dim]), (None, None))
    return _settled(Spread(_with(spread.dims, dim, (part,)), (reaches[0], reaches[1]), spread.sides))


def rolled(spread: Spread, dim: int, shift: int) -> Spread:
    """Move positions along a dimension, those that leave it at one end coming in at the other."""
    if not spread.moved(dim):
        return spread
    rows, columns = (
        replace(reach, first=np.roll(reach.first, shift, dim), last=np.roll(reach.last, shift, dim))
        for reach in spread.reach
    )
    part = Part(spread.shape[dim], places_of(spread.dims[dim]), disordered(spread.dims[dim]))
    return _settled(Spread(_with(spread.dims, dim, (part,)), (rows, columns), spread.sides))


def unfolded(spread: Spread, dim: int, taps: Taps) -> Spread:
    """Put what each new position along a dimension reads into a new last dimension."""
    part = merged(spread.dims[dim])
    reads = taps.index.shape[1]
    step = int(taps.index[0, 1] - taps.index[0, 0]) if reads > 1 else 1
    reaches, outer, inner = [], [], []
    for axis in (ROWS, COLUMNS):
        reach, move = spread.reach[axis], part.moves[axis]
        even = move is not None and move[0] == 1
        outer.append((1, move[1] * taps.shift) if even and move else None)
        inner.append((1, move[1] * step) if even and move else None)
        if move == STILL:
            reaches.append(replace(reach, first=reach.first[..., None], last=reach.last[..., None]))
            continue
        first, last = (
            np.moveaxis(_gathered(array, dim, part.extent, move, taps, nowhere), dim + 1, -1)
            for array, nowhere in ((reach.first, NOWHERE), (reach.last, -NOWHERE))
        )
        reaches.append(Reach(first, last, reach.mixed))
    outside = Part(len(taps.index), part.places, (outer[0], outer[1]))
    inside = Part(reads, part.places, (inner[0], inner[1]))
    dims = (*_with(spread.dims, dim, (outside,)), (inside,))
    return _settled(Spread(dims, (reaches[0], reaches[1]), spread.sides))


def alike(one: Spread, other: Spread) -> bool:
    """Whether positions draw on the same in both, whatever lies along the dimensions that make no difference."""
    return len(one.dims) == len(other.dims) and all(
        np.array_equal(a.first, b.first) and np.array_equal(a.last, b.last)
        for a, b in zip(one.reach, other.reach, strict=True)
    )


def _with(dims: tuple[Parts, ...], dim: int, parts: Parts) -> tuple[Parts, ...]:
    return (*dims[:dim], parts, *dims[dim + 1 :])


def _squeezed(array: np.ndarray, dims: Collection[int]) -> np.ndarray:
    return array.reshape([length for dim, length in enumerate(array.shape) if dim not in dims])


def _aligned(spread: Spread, ndim: int) -> Spread:
    while len(spread.dims) < ndim:
        spread = unsqueezed(spread, 0)
    return spread


def _covers(reach: Reach, side: int) -> bool:
    return bool(reach.first.max() <= 0 and reach.last.min() >= side - 1)


def mixes(spread: Spread, dims: Collection[int], axis: int) -> bool:
    """Whether all rows, or columns, of a map become one where the positions along dimensions do."""
    gone = [part for dim in dims for part in spread.dims[dim]]
    left = [part for dim, parts in enumerate(spread.dims) if dim not in dims for part in parts]
    moving = any(part.moves[axis] != STILL or part.places & (1 << axis) for part in gone)
    if not moving or places_of(left) & (1 << axis) or not still(left, axis):
        return False
    reach, side = spread.reach[axis], spread.sides[axis]
    seen = reach.first.min() <= 0 and reach.last.max() >= side - 1
    return bool(seen) or not places_of(gone) & CUT  # strides may leave out the last pixels of a whole map, too


def _moving(
    parts: Parts, options: Sequence[Parts], axis: int, first: np.ndarray, last: np.ndarray, dim: int
) -> Parts:  # fmt: skip
    """How a union moves along a dimension: as one of the tensors does, or stands still, or unevenly."""
    for option in options:
        moves = [part.moves[axis] for part in option]
        if _holds(parts, moves, first, last, dim):
            return tuple(part.moving(axis, move) for part, move in zip(parts, moves, strict=True))
    move = STILL if _constant(first, dim) and _constant(last, dim) else None
    return tuple(part.moving(axis, move) for part in parts)


def _holds(parts: Parts, moves: Sequence[Move | None], first: np.ndarray, last: np.ndarray, dim: int) -> bool:
    """Whether intervals move along a dimension as said."""
    extents = [part.extent for part in parts]
    if first.shape[dim] == 1 and math.prod(extents) > 1:
        return all(move == STILL for move in moves)
    shape = (*first.shape[:dim], *extents, *first.shape[dim + 1 :])
    first, last = first.reshape(shape), last.reshape(shape)
    for place, (extent, move) in enumerate(zip(extents, moves, strict=True), dim):
        if move is None or (1 < extent <= move[0]):
            return False
        if extent == 1:
            continue
        one, other = (slice(None),) * place + (slice(-move[0]),), (slice(None),) * place + (slice(move[0], None),)
        nothing = (first[one] > last[one]) & (first[other] > last[other])
        if not all((nothing | (array[other] - array[one] == move[1])).all() for array in (first, last)):
            return False
    return True


def _gathered(array: np.ndarray, dim: int, length: int, move: Move | None, taps: Taps, nowhere: int) -> np.ndarray:
    """What is read along a dimension, its taps in a dimension after it; padding goes on as the map does."""
    within = (taps.index >= 0) & (taps.index < length)
    if move is None:
        index, beyond, there = taps.index.clip(0, length - 1), np.zeros_like(taps.index), within
    else:
        rounds, rest = np.divmod(taps.index, move[0])
        index, beyond = np.where(within, taps.index, rest), np.where(within, 0, rounds * move[1])
        there = np.ones_like(within)
    if taps.valid is not None:
        there = there & taps.valid
    lengths = [1] * dim + list(index.shape) + [1] * (array.ndim - dim - 1)
    beyond = beyond.astype(np.int32).reshape(lengths)
    return np.where(there.reshape(lengths), np.take(array, index, dim) + beyond, np.int32(nowhere))


def _slid(move: Move | None, taps: Taps, first: np.ndarray, last: np.ndarray, dim: int) -> Move | None:
    """How intervals move after sliding, with the shortest period."""
    if move is None:
        return None
    shared = math.gcd(move[0], taps.shift)
    period, advance = taps.period * (move[0] // shared), move[1] * (taps.shift // shared)
    length = first.shape[dim]
    for shorter in range(1, period):
        if period % shorter == 0 and advance * shorter % period == 0 and shorter < length:
            step = (shorter, advance * shorter // period)
            if _holds((Part(length),), (step,), first, last, dim):
                return step
    return (period, advance) if period <= length else None


def _settled(spread: Spread) -> Spread:
    """Shorten arrays along dimensions that make no difference, and end intervals at the border where they must."""
    dims, reaches = list(spread.dims), []
    for axis in (ROWS, COLUMNS):
        reach, side = spread.reach[axis], spread.sides[axis]
        first, last = reach.first, reach.last
        uneven = any(part.moves[axis] is None for parts in dims for part in parts)
        if uneven or all(still(parts, axis) for parts in dims):
            first, last = first.clip(min=0), last.clip(max=side - 1)
            nothing = first > last
            if nothing.any():
                first, last = np.where(nothing, NOWHERE, first), np.where(nothing, -NOWHERE, last)
        for dim, parts in enumerate(dims):
            if first.shape[dim] == 1:
                continue
            if uneven and not still(parts, axis) and _constant(first, dim) and _constant(last, dim):
                dims[dim] = tuple(part.moving(axis, STILL) for part in parts)
            if still(dims[dim], axis):
                first, last = first.take([0], dim), last.take([0], dim)
        reaches.append(Reach(first, last, reach.mixed))
    return Spread(tuple(dims), (reaches[0], reaches[1]), spread.sides)


def _constant(array: np.ndarray, dim: int) -> bool:
    return array.shape[dim] == 1 or bool((array == array.take([0], dim)).all())
