"""What is known of a graph's values while it is read, from the image on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from convsmith.networks.receptive.spread import Spread, UnfollowedError
from convsmith.networks.recording.graph import Graph, Operation, Ref


@dataclass(frozen=True)
class Reading:
    """What is known of a graph's values so far.

    Args:
        graph: being read.
        spreads: what values draw on.
        reasons: why it is unknown for others; values in neither do not depend on the image.
        apart: values whose channels may draw on different parts of the image; their spread is of all together.
        bounds: for values whose spread is an upper bound, and how much less they draw on is not known: why.
        hidden: the values among these that are weights of attention under a mask.
        gates, statistics: see `Fields`; the keys, in their order.
    """

    graph: Graph
    spreads: MutableMapping[int, Spread] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    apart: set[int] = field(default_factory=set)
    bounds: dict[int, str] = field(default_factory=dict)
    hidden: set[int] = field(default_factory=set)
    gates: dict[str, None] = field(default_factory=dict)
    statistics: dict[str, None] = field(default_factory=dict)

    @cached_property
    def producer(self) -> Mapping[int, int]:
        """The operation that makes each value."""
        return self.graph.producer()

    def free(self, value: int) -> bool:
        """Whether a value does not depend on the image."""
        return value not in self.spreads and value not in self.reasons

    def of(self, argument: Any) -> Spread | None:
        """What an argument draws on; None where it does not depend on the image, or is no tensor."""
        return self.spreads.get(argument.index) if isinstance(argument, Ref) else None

    def images(self, operation: Operation) -> list[Spread]:
        """What those inputs draw on that depend on the image."""
        return [self.spreads[value] for value in operation.inputs if value in self.spreads]

    def shape(self, argument: Ref | int) -> tuple[int, ...]:
        """The shape of a value."""
        return self.graph.values[argument.index if isinstance(argument, Ref) else argument].shape

    def subject(self, operation: Operation, *names: str) -> Spread:
        """What the one tensor that an operation works on draws on; its name is the first of these that there is."""
        name = next(name for name in (*names, "self") if name in operation.arguments)
        spread = self.of(operation.arguments[name])
        if spread is None:
            raise UnfollowedError("only what it is steered by depends on the image")
        return spread

    def made(self, operation: Operation) -> tuple[int, ...]:
        """The shape of an operation's first result."""
        return self.shape(operation.outputs[0])


Rule = Callable[[Reading, Operation], Sequence[Spread]]
"""From an operation, of which no input is unknown, to what its results draw on; those missing are not followed."""
