"""Where the maps of each size are ready: the ends of a network's stages, as its graph shows them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from convsmith.networks.receptive.fields import Fields, last_map
from convsmith.networks.recording.graph import Call, Graph


@dataclass(frozen=True)
class StageMap:
    """The last map of its size.

    Args:
        path: of the module that returns it.
        turn: which of that module's calls does, from 0.
        value: its index in the graph.
        places: rows and columns, or the number of tokens and 1.
    """

    path: str
    turn: int
    value: int
    places: tuple[int, int]

    @property
    def tokens(self) -> bool:
        """Whether it is not known which token lies where."""
        return self.places[1] == 1 < self.places[0]


def stage_maps(graph: Graph, fields: Fields) -> tuple[StageMap, ...]:
    """The last map of each size that a module returns, in the order in which they are made.

    What lies inside a block that goes on to another size, such as the expansion before a strided convolution, is still
    on its way; a chain of blocks (`Sequential`) is none. Where a network returns to a size, as decoders do, the later
    map stands. The last one is what the head is given, where a module returns that. Those whose field is not known are
    left out.
    """
    final = last_map(graph, fields)
    found: dict[int, StageMap] = {}
    turns: dict[str, int] = {}
    for call in sorted(graph.calls, key=lambda call: call.stop):
        turn = turns.get(call.path, 0)
        turns[call.path] = turn + 1
        if len(call.outputs) != 1 or call.parent < 0 or (final is not None and call.outputs[0] > final):
            continue
        value = call.outputs[0]
        size = _size(fields, value)
        if size is None or any(_passes(graph, fields, outer, call, size) for outer in _around(graph, call)):
            continue
        known = found.pop(math.prod(size), None)
        if known is not None and known.value == value:  # several modules return it; the outermost one is what it ends
            turn, path = (known.turn, known.path) if known.path.count(".") < call.path.count(".") else (turn, call.path)
            found[math.prod(size)] = StageMap(path, turn, value, size)
            continue
        found[math.prod(size)] = StageMap(call.path, turn, value, size)
    known = (stage for stage in found.values() if not fields.unknown(stage.value))
    return tuple(sorted(known, key=lambda stage: stage.value))


def _size(fields: Fields, value: int) -> tuple[int, int] | None:
    """Rows and columns of a map; None for what is none."""
    return fields.places(value) if fields.is_map(value) else None


def _around(graph: Graph, call: Call) -> Iterator[Call]:
    """The calls within which a call was made, without the network's own; those that return the same value left out."""
    outer = call.parent
    while outer >= 0 and graph.calls[outer].parent >= 0:
        if graph.calls[outer].outputs != call.outputs:
            yield graph.calls[outer]
        outer = graph.calls[outer].parent


def _passes(graph: Graph, fields: Fields, outer: Call, call: Call, size: tuple[int, int]) -> bool:
    """Whether a block is given maps of this size and returns others, with a call in it that is on the way."""
    if not outer.inputs or not outer.outputs:
        return False
    given, returned = _size(fields, outer.inputs[0]), _size(fields, outer.outputs[0])
    if given != size or returned is None or returned == size:
        return False
    before = (operation.name for operation in graph.operations[outer.start : call.stop])
    return outer.type != "Sequential" or not any(name in WEIGHTY for name in before)


WEIGHTY = ("convolution", "addmm", "mm", "bmm")
"""A chain that has come to none of these has only prepared the next size, by a norm for example."""
