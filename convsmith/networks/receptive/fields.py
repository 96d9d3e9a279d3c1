"""Which part of the image each value in a network can draw on: receptive fields, read from its recorded graph.

For every value, intervals of rows and columns are followed from the image through each operation, so that branches,
dilation, ceiling modes, enlarging, windows and tokens come out exactly, as the smallest rectangle around what can reach
a position. What counts how:

- A field reaches past the image's border where padding does, so it does not depend on the image's size. Weights are
  not looked at: a tap that is zero counts.
- Norms count as what they are in inference: batch norm works point by point. Layer, group and instance norm take their
  statistics from the input; where these are of all positions, the field stays that of the maps, and they are listed
  apart, in `statistics`.
- A branch that pools all of the image and multiplies a local map, such as squeeze-excite, leaves the field local too,
  and is listed apart, in `gates`.
- The channels of a map count together: what one of them draws on, its position draws on. Where some of them are taken
  out of branches side by side, they are followed back to the branches that they come from.
- Softmax and products over positions mix all of them: behind attention, the field is the whole image.
- Masks of attention are constants, whose numbers are not looked at. Behind one, fields are unknown until all of a map
  is mixed without a mask: Swin's shifted windows draw on less than what rolling brings together.
- What is not known is None, with the reason, and never a number.

Source: the recurrences of Araujo et al. 2019, "Computing receptive fields of convolutional neural networks", which
this follows position by position.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from convsmith.networks.receptive.channels import mark, taken
from convsmith.networks.receptive.following import follow, sets
from convsmith.networks.receptive.masks import bound
from convsmith.networks.receptive.parts import COLUMNS, ROWS, STILL, Parts, merged, places_of
from convsmith.networks.receptive.reading import Reading
from convsmith.networks.receptive.spread import Reach, Spread, UnfollowedError, of_image
from convsmith.networks.recording.graph import Graph


@dataclass(frozen=True)
class Axis:
    """The receptive field along one side of the image.

    Args:
        size: pixels; the largest where positions differ.
        stride: pixels from one position's field to the next one's, on average; 0 where all positions have one field,
            None where positions are not evenly spaced.
        offset: centre of the first position's field, in pixels; the centre of the image's first pixel is 0.
    """

    size: int
    stride: float | None
    offset: float

    def interval(self, position: int) -> tuple[float, float]:
        """First and last pixel of a position's field, which may lie outside of the image.

        Right where the field's positions are even (see `Field`); else about right.
        """
        centre = self.offset + position * (self.stride or 0)
        return centre - (self.size - 1) / 2, centre + (self.size - 1) / 2


@dataclass(frozen=True)
class Field:
    """The receptive field of a value.

    Args:
        height, width: along both sides of the image.
        whole: all positions see the whole image, since all of a map before them was mixed: by global pooling, a linear
            layer over flattened maps, or attention. Sizes are then those of what they see of this image.
        even: all positions have fields of equal size, evenly spaced. Not so after enlarging, windows, or uneven
            adaptive pooling; then sizes are the largest, and where there is no order in them, what padding would add
            is left out, so that they are those in an image of this size.
    """

    height: Axis
    width: Axis
    whole: bool
    even: bool


@dataclass(frozen=True)
class Place:
    """A position of a value.

    Args:
        index: its number along each dimension; None along those that are not of places, such as channels.
        box: what it draws on: first row, first column, last row, last column; outside the image they are in padding.
    """

    index: tuple[int | None, ...]
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Fields:
    """Receptive fields of all values of a graph.

    Args:
        gates: paths of the modules in which a global branch multiplies a local map.
        statistics: paths of the norms that look at all positions.
        sides: height and width of the image, px.
    """

    gates: tuple[str, ...]
    statistics: tuple[str, ...]
    sides: tuple[int, int]
    _spreads: Mapping[int, Spread]
    _reasons: Mapping[int, str]
    _bounds: Mapping[int, str]

    def of(self, value: int) -> Field | None:
        """The field of a value; None where it is unknown, or the value does not depend on the image."""
        spread = self._known(value)
        if spread is None:
            return None
        height, width = _axis(spread, ROWS), _axis(spread, COLUMNS)
        return Field(height, width, spread.pooled(), _even(spread, ROWS) and _even(spread, COLUMNS))

    def reason(self, value: int) -> str:
        """Why a value has no field; empty where it has one."""
        if self._known(value) is not None:
            return ""
        return self._bounds.get(value) or self._reasons.get(value, "it does not depend on the image")

    def unknown(self, value: int) -> bool:
        """Whether a value depends on the image in a way that is not known."""
        return value in self._reasons or value in self._bounds

    def reach(self, value: int) -> tuple[Reach, Reach] | None:
        """The rows and the columns that each position of a value draws on; None where `of` is."""
        spread = self._known(value)
        return None if spread is None else spread.reach

    def at(self, value: int, down: float = 0.5, across: float = 0.5) -> Place | None:
        """A position on a map, or among tokens, and what it draws on; None where `of` is.

        Args:
            down, across: where, from 0 at the top and left to 1 at the bottom and right.
        """
        spread = self._known(value)
        if spread is None:
            return None
        parts = [part for parts in spread.dims for part in parts]
        rows = _share([part.extent for part in parts if part.places & 3 == 1], down)
        columns = _share([part.extent for part in parts if part.places & 3 == 2], across)
        tokens = _share([part.extent for part in parts if part.places & 3 == 3], down)  # in an order of their own
        index: list[int | None] = []
        for factors in spread.dims:
            place = 0
            for part in factors:
                kind = part.places & 3
                place *= part.extent
                place += (rows if kind == 1 else columns if kind == 2 else tokens).pop(0) if kind else 0
            index.append(place if any(part.places & 3 for part in factors) else None)
        (top, bottom), (left, right) = (
            tuple(_number(array, index) for array in (reach.first, reach.last)) for reach in spread.reach
        )
        return Place(tuple(index), (top, left, bottom, right))

    def places(self, value: int) -> tuple[int, int]:
        """Rows and columns of a map; the number of tokens and 1 where they are in an order of their own."""
        spread = self._spreads[value]
        counts = dict.fromkeys(range(4), 1)
        for part in (part for parts in spread.dims for part in parts):
            counts[part.places & 3] *= part.extent
        return (counts[1], counts[2]) if counts[3] == 1 else (counts[1] * counts[2] * counts[3], 1)

    def is_map(self, value: int) -> bool:
        """Whether a value is a map with rows along one dimension and columns along another, or tokens along one."""
        spread = self._spreads.get(value)
        if spread is None or spread.places != 3:
            return False
        along = [places_of(parts) & 3 for parts in spread.dims]
        channels = any(
            len({bool(part.places & 3) for part in parts if part.extent > 1}) > 1 for parts in spread.dims
        )  # that lie in one dimension with places, as after flattening
        kinds = sorted(kind for kind in along if kind)
        return not channels and (kinds == [1, 2] or (kinds == [3] and len(along) > 2))

    def _known(self, value: int) -> Spread | None:
        """What a value draws on, where that is known and no bound alone."""
        return None if value in self._bounds else self._spreads.get(value)


def receptive_fields(graph: Graph) -> Fields:
    """Follow the image through a recorded network.

    Args:
        graph: of a pass over `[N, C, H, W]`; where the input is something else, all is unknown.
    """
    reading = Reading(graph)
    (image,) = graph.inputs
    shape = graph.values[image].shape
    sides = (shape[2], shape[3]) if len(shape) == 4 else (0, 0)
    if len(shape) == 4:
        reading.spreads[image] = of_image(shape)
    else:
        reading.reasons[image] = f"the input {list(shape)} is not a batch of images"
    for operation in graph.operations:
        dependent = [value for value in operation.inputs if not reading.free(value)]
        unknown = next((reading.reasons[value] for value in dependent if value in reading.reasons), None)
        filled = [value for value in operation.outputs if 0 not in graph.values[value].shape]
        if not dependent or not filled or sets(reading, operation):
            continue  # what holds no numbers, or new ones, draws on nothing
        where = f"{operation.name} in {operation.module or 'the network itself'}"
        try:
            if unknown is not None:
                raise UnfollowedError(unknown)
            spreads = taken(reading, operation, follow(reading, operation))
        except UnfollowedError as error:
            reason = str(error) if unknown is not None else f"{where}: {error}"
            reading.reasons.update(dict.fromkeys(filled, reason))
            continue
        for place, output in enumerate(operation.outputs):
            if output in filled and place < len(spreads):
                spread = spreads[place]
                if spread is not None:
                    reading.spreads[output] = spread
            elif output in filled and spreads:
                reading.reasons[output] = f"{where}: only its first result is followed"
        mark(reading, operation, where)
        bound(reading, operation, where)
    return Fields(
        tuple(reading.gates), tuple(reading.statistics), sides, reading.spreads, reading.reasons, reading.bounds
    )


def last_map(graph: Graph, fields: Fields) -> int | None:
    """The last map, or tokens, before pooling or flattening, whose field is what is meant by a network's field.

    Returns:
        The value's index. Where something unknown comes after the last map that was followed, it is that, whose
        `Fields.reason` says why; None where the network makes neither.
    """
    producer = graph.producer()
    wanted, used = list(graph.outputs), set(graph.outputs)
    while wanted:
        operation = producer.get(wanted.pop())
        if operation is not None:
            new = [value for value in graph.operations[operation].inputs if value not in used]
            used.update(new)
            wanted += new
    made = (value for operation in reversed(graph.operations) for value in operation.outputs if value in used)
    return next((value for value in made if fields.is_map(value) or fields.unknown(value)), None)


def _axis(spread: Spread, axis: int) -> Axis:
    reach = spread.reach[axis]
    there = reach.last >= reach.first
    size = int((reach.last - reach.first + 1).max(where=there, initial=0))
    centres = (reach.first + reach.last)[there]
    moves = [move for parts in spread.dims for move in _moves(parts, axis) if move != STILL]
    stride: float | None = 0
    if any(move is None for move in moves):
        stride = None
    elif moves:
        stride = min(abs(move[1]) / move[0] for move in moves if move is not None)
        stride = int(stride) if stride == int(stride) else stride
    return Axis(size, stride, float(centres[0]) / 2 if centres.size else 0.0)


def _even(spread: Spread, axis: int) -> bool:
    reach = spread.reach[axis]
    moves = [move for parts in spread.dims for move in _moves(parts, axis) if move != STILL]
    if not moves and spread.places & (1 << axis) and not reach.mixed:
        return False  # uneven ones, of which each ends at both borders
    return not np.ptp(reach.last - reach.first) and len(moves) < 2 and all(move and move[0] == 1 for move in moves)


def _moves(parts: Parts, axis: int) -> list[tuple[int, int] | None]:
    """How intervals move along a dimension, for rows and columns of a map by themselves."""
    return [merged(list(group)).moves[axis] for _, group in groupby(parts, key=lambda part: part.places & 3)]


def _share(extents: Sequence[int], share: float) -> list[int]:
    """The numbers of a position, counted over several factors, outer ones first."""
    total = math.prod(extents)
    place = min(total - 1, int(share * total))
    return [int(number) for number in np.unravel_index(place, extents)] if extents else []


def _number(array: np.ndarray, index: Sequence[int | None]) -> int:
    """A number of an array whose lengths of 1 stand for all positions."""
    return int(array[tuple(0 if length == 1 else place or 0 for place, length in zip(index, array.shape, strict=True))])
