"""What a design rule is, and what it judges by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import nn

from convsmith.errors import UsageError
from convsmith.networks.counting.macs import macs_of
from convsmith.networks.lint.trail import Trail
from convsmith.networks.receptive import Fields, receptive_fields
from convsmith.networks.recording.graph import Graph, record
from convsmith.records import Finding, Severity

IMAGES = 5
"""In the recorded batch: a number that hardly any layer has as a size of its own."""
SHOWN = 5


@dataclass(frozen=True)
class Evidence:
    """All that rules judge by. Graphs are recorded when a rule first asks for them.

    Args:
        model: as it is.
        shape: of one image, `(channels, height, width)`.
        batch: images per step on each device, where that is known.
        classes: of the data, where there is any.
        side: median of the images' shorter sides in px, as they lie in the data.
    """

    model: nn.Module
    shape: tuple[int, int, int]
    batch: int | None = None
    classes: int | None = None
    side: int | None = None

    @cached_property
    def inference(self) -> Trail:
        """The network as it predicts `IMAGES` images."""
        return Trail(record(self.model, self.shape, batch=IMAGES))

    @cached_property
    def training(self) -> Trail | None:
        """The same in training mode; None where it cannot be recorded."""
        return _tried(self.model, self.shape, training=True)

    @cached_property
    def larger(self) -> Trail | None:
        """The network on images of twice the sides; None where it takes no such images."""
        channels, height, width = self.shape
        return _tried(self.model, (channels, 2 * height, 2 * width))

    @cached_property
    def macs(self) -> Mapping[int, int]:
        """Multiply-adds of one image by operation of `inference`; products of unknown cost are left out."""
        return {index: count // IMAGES for index, count in macs_of(self.inference.graph).items() if count is not None}

    @cached_property
    def fields(self) -> Fields:
        """Receptive fields of the values of `inference`."""
        return receptive_fields(self.inference.graph)

    @cached_property
    def total(self) -> int:
        """All parameters, shared ones once."""
        return sum(parameter.numel() for parameter in self.model.parameters())


def _tried(model: nn.Module, shape: Sequence[int], *, training: bool = False) -> Trail | None:
    try:
        return Trail(record(model, shape, batch=IMAGES, training=training))
    except UsageError:
        return None


@dataclass(frozen=True)
class Example:
    """A network for which it is known what a rule has to say.

    Args:
        line: a written line of layers, or
        make: a function that makes the network, whose source is shown.
        shape: of one image.
        batch, classes, side: as in `Evidence`.
    """

    line: str = ""
    make: Callable[[], nn.Module] | None = None
    shape: tuple[int, int, int] = (3, 32, 32)
    batch: int | None = None
    classes: int | None = None
    side: int | None = None

    def evidence(self) -> Evidence:
        """The network and the rest, to be judged."""
        from convsmith.networks.lines.reading import read_line

        model = self.make() if self.make else read_line(self.line, self.shape).network()
        return Evidence(model, self.shape, self.batch, self.classes, self.side)


@dataclass(frozen=True)
class Seen:
    """What a rule found: a sentence, the layers, the figures."""

    says: str
    where: tuple[str, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    severity: Severity | None = None


@dataclass(frozen=True)
class Rule:
    """A rule about designs.

    Args:
        id: what switches it off, and the name of its page.
        severity: of its findings, unless one says otherwise; an `error` is a network that does not do what it is for.
        title: the fault, in a line.
        check: from evidence to what was found; None where all is well, or it cannot be told.
        why: what harm it does.
        mend: what to do instead.
        source: paper or page.
        broken: a network that has the fault.
        healthy: its twin without.
    """

    id: str
    severity: Severity
    title: str
    check: Callable[[Evidence], Seen | None]
    why: str
    mend: str
    source: str
    broken: Example
    healthy: Example

    def judge(self, evidence: Evidence) -> Finding | None:
        """Return what the rule finds, as a record."""
        seen = self.check(evidence)
        if seen is None:
            return None
        figures = {**seen.figures, "mend": self.mend}
        return Finding(self.id, seen.severity or self.severity, seen.says, figures, seen.where, source=self.source)


def named(paths: Sequence[str]) -> str:
    """Some paths in words: the first five, and how many more."""
    own = [path or "the network itself" for path in dict.fromkeys(paths)]
    more = f" and {len(own) - SHOWN} more" if len(own) > SHOWN else ""
    return ", ".join(own[:SHOWN]) + more


def plural(count: int, one: str, many: str = "") -> str:
    """`3 layers`, `1 layer`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


__all__ = ["IMAGES", "Evidence", "Example", "Graph", "Rule", "Seen", "named", "plural"]
