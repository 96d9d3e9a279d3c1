"""Proposes other networks in the place of a given one: what was asked for, under the limits that were given.

Each proposal is built and measured by itself, and none is shown that does not keep to the limits.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

from torch import nn

from convsmith.design import ConvNet, doubling
from convsmith.errors import UsageError
from convsmith.networks import build_design, preset
from convsmith.networks.counting.analysis import analyse
from convsmith.networks.counting.costs import Clock, Costs, Quantity, bare, cost_of, costs, costs_from, field_of
from convsmith.networks.rewriting.dials import (
    Dial,
    Made,
    least,
    module_dials,
    module_seeing_dials,
    saving_dials,
    seeing_dials,
)
from convsmith.networks.rewriting.editing import stage_number
from convsmith.networks.rewriting.narrowing import narrow
from convsmith.networks.rewriting.operations import OPERATIONS
from convsmith.networks.rewriting.surgery import change_output_stride
from convsmith.networks.zoo import convnet
from convsmith.pipeline.given_model import Given
from convsmith.recipe import Named
from convsmith.reporting.inspection import amount
from convsmith.training import untouched

FIGURES: tuple[Quantity, ...] = ("parameters", "macs", "memory")
MARGIN = 1.05
"""What measured times are multiplied by in the search, so that they keep to the limit when measured once more too."""
NOUNS: Mapping[Quantity, str] = {
    "parameters": "parameters",
    "macs": "multiply-adds",
    "memory": "of memory",
    "latency": "of time",
}


@dataclass(frozen=True)
class Limit:
    """The most that a proposal may cost.

    Args:
        what: parameters, multiply-adds for an image, bytes that training keeps of an image, or seconds for an image.
        most: of it.
    """

    what: Quantity
    most: float


@dataclass(frozen=True)
class Wish:
    """What is asked for.

    Args:
        operations: rows of `OPERATIONS` with their options, in their order; a stage by its number or name.
        sees: pixels that a position of the last maps is to see, at least.
        limits: all of which a proposal keeps to.
        saves: shares, from 0 to 1, of what the network costs now that are to be saved.
    """

    operations: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    sees: int | None = None
    limits: tuple[Limit, ...] = ()
    saves: tuple[tuple[Quantity, float], ...] = ()

    @property
    def times(self) -> bool:
        """Whether time is to be measured, for which the network needs values."""
        return "latency" in {*(limit.what for limit in self.limits), *(what for what, _ in self.saves)}


@dataclass(frozen=True)
class Proposal:
    """Another network.

    Args:
        name, source: the way in which it differs.
        did: what was changed, in words.
        after: what it costs.
        seconds: for an image on this machine; None where time was not asked for.
        design: it as data; None where it is no design.
        calls: Python that makes it, see `Made`.
    """

    name: str
    source: str
    did: str
    after: Costs
    seconds: float | None
    design: ConvNet | None
    calls: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """All of it in plain types."""
        design = None if self.design is None else self.design.model_dump(mode="json")
        after = {**self.after.to_json(), "seconds": self.seconds}
        about = {"name": self.name, "source": self.source, "did": self.did, "after": after}
        return {**about, "design": design, "python": list(self.calls)}


@dataclass(frozen=True)
class Proposals:
    """What was found.

    Args:
        given: the network that they stand in the place of.
        outputs: its classes.
        design: of it; None where it is no design.
        before: what it costs.
        seconds: for an image on this machine; None where time was not asked for.
        threads: of the processor, with which time was measured.
        limits: those that proposals keep to, shares turned into figures.
        ranked: the proposals, those that cost least in all first.
        left_out: ways by which nothing was found, and why.
    """

    given: Given
    outputs: int
    design: ConvNet | None
    before: Costs
    seconds: float | None
    threads: int
    limits: tuple[Limit, ...]
    ranked: tuple[Proposal, ...]
    left_out: tuple[tuple[str, str], ...]

    def to_json(self) -> dict[str, Any]:
        """All of it in plain types."""
        return {
            "model": self.given.name,
            "input": list(self.given.shape),
            "input_assumed": bool(self.given.assumed),
            "outputs": self.outputs,
            "threads": self.threads,
            "before": {**self.before.to_json(), "seconds": self.seconds},
            "limits": {limit.what: limit.most for limit in self.limits},
            "proposals": [proposal.to_json() for proposal in self.ranked],
            "left_out": [{"name": name, "why": why} for name, why in self.left_out],
        }


def told(what: Quantity, figure: float | None) -> str:
    """A figure as people write it."""
    if figure is None:
        return "an unknown number"
    if what == "latency":
        return f"{1000 * figure:.3g} ms"
    if what != "memory":
        return amount(round(figure))
    unit, of = ("KiB", 2**10) if figure < 2**20 else ("MiB", 2**20)
    return f"{figure / of:,.{0 if figure >= 100 * of else 1}f} {unit}"


def propose(given: Given, wish: Wish) -> Proposals:
    """Find networks that do what is asked for, and cost no more than is allowed.

    A design is changed by operations, and any other network in a copy. Where the limits are exceeded after that, each
    way of saving is tried by itself, as far as it must go. They are ranked by what is left of parameters,
    multiply-adds and memory together: which of them learns best, only training shows.

    Args:
        given: as `open_model` returned it; with values where the wish is about time.
        wish: what is asked for.

    Raises:
        UsageError: an operation that the network cannot take, or a figure to save that is not known of it.
    """
    return _Studio(given, wish).propose()


def design_of(given: Given) -> ConvNet | None:
    """The design that a model was built from; None where it is somebody's code, or a line of layers."""
    asked = given.asked
    if asked.network is not None:
        return asked.network
    name, options = asked.text if asked.kind == "name" else "", dict(asked.options)
    if asked.run is not None:
        recipe = asked.run.read_recipe()
        if recipe.network is not None:
            return recipe.network
        if isinstance(recipe.model, Named):
            name, options = recipe.model.name, dict(recipe.model.options)
    if name == "convnet":
        signature = inspect.signature(convnet).parameters
        values: dict[str, Any] = {key: row.default for key, row in signature.items() if row.default is not row.empty}
        values |= options
        head = {"kind": values.pop("head"), "dropout": values.pop("dropout")}
        return doubling(**values, head=head)
    return None if options else preset(name, given.shape[1])


@dataclass(frozen=True)
class _Way:
    """A network on the way to a proposal, and what has been done so far."""

    name: str
    source: str
    made: Made

    def then(self, dial: Dial, made: Made) -> _Way:
        """After a dial was turned too."""
        before = self.made
        named = ", ".join(filter(None, (self.name, dial.name)))
        did = "; ".join(filter(None, (before.did, made.did)))
        source = "; ".join(dict.fromkeys(filter(None, (self.source, dial.source))))
        return _Way(named, source, Made(made.model, did, made.design, (*before.calls, *made.calls)))


class _Studio:
    """One wish for one network."""

    def __init__(self, given: Given, wish: Wish) -> None:
        self.given, self.wish, self.shape = given, wish, given.shape
        known = analyse(given.model, given.shape)
        self.before = costs_from(known)
        self.outputs = _classes(given, known.graph.values[known.graph.outputs[0]].shape)
        self.design = design_of(given)
        self.model = given.model if self.design is None else self.build(self.design)
        self.clock = Clock(self.model, given.shape) if wish.times else None
        self.limits = (*wish.limits, *(self._saved(what, share) for what, share in wish.saves))
        self.left_out: list[tuple[str, str]] = []

    def build(self, design: ConvNet) -> nn.Module:
        """A design as a network; with values only where it is to be timed."""
        if not self.wish.times:
            return bare(design, self.shape, self.outputs)
        with untouched():
            return build_design(design, self.shape[0], self.outputs)

    def propose(self) -> Proposals:
        """Go all ways, and keep those that lead to what is asked for."""
        found: dict[str, Proposal] = {}
        for begun in self._seeing(self._operated()):
            changed = bool(begun.made.did)
            for way in [begun] if changed and self._enough(begun.made.model) else self._saving(begun):
                proposal = self._proposed(way)
                if proposal is not None:
                    found.setdefault(repr(way.made.design or way.made.calls), proposal)
        seconds, threads = (None, 0) if self.clock is None else (self.clock.seconds, self.clock.threads)
        return Proposals(
            self.given, self.outputs, self.design, self.before, seconds, threads, self.limits,
            tuple(sorted(found.values(), key=self._left)), tuple(self.left_out),
        )  # fmt: skip

    def _operated(self) -> _Way:
        """The network after the operations that were asked for."""
        made = Made(self.model, "", self.design)
        for name, options in self.wish.operations:
            values = (f"{value:g}" if isinstance(value, float) else str(value) for value in options.values())
            did = " ".join([name, *values])
            if made.design is None:
                made = _operated_on(made, self.shape, name, options, did)
            else:
                design = OPERATIONS.build(name, made.design, **_placed(made.design, options))
                made = Made(self.build(design), "; ".join(filter(None, (made.did, did))), design)
        sources = dict.fromkeys(filter(None, (OPERATIONS[name].source for name, _ in self.wish.operations)))
        return _Way("as asked" if made.did else "", "; ".join(sources), made)

    def _seeing(self, way: _Way) -> list[_Way]:
        """The ways to let it see as far as was asked for; it alone where it does."""
        if self.wish.sees is None:
            return [way]
        if self._sees(way.made.model):
            if not way.made.did and not self.limits:
                raise UsageError(
                    f"{self.given.name} sees {self.wish.sees} px already.",
                    mend="convsmith inspect says how far it sees.",
                )
            return [way]
        made, found = way.made, []
        both = module_seeing_dials(made.model, self.shape)
        for dial in seeing_dials(made.design, self.build) if made.design is not None else both:
            turned = least(dial, self._sees, gently=True)
            if turned is None:
                self.left_out.append((dial.name, f"it does not come to {self.wish.sees} px on images of this size"))
            else:
                found.append(way.then(dial, turned))
        return found

    def _saving(self, way: _Way) -> list[_Way]:
        """The ways to keep to the limits from there."""
        design, found = way.made.design, []
        dials = saving_dials(design, self.build) if design else module_dials(way.made.model, self.shape)
        # Fewer channels leave the receptive field as it is; other ways would be there for each way to see further.
        for dial in dials if self.wish.sees is None else dials[:1]:
            turned = least(dial, self._enough)
            if turned is None:
                self.left_out.append((way.then(dial, way.made).name, self._far(dial)))
            else:
                found.append(way.then(dial, turned))
        return found

    def _far(self, dial: Dial) -> str:
        """What a way leaves at its end, where that is too much."""
        try:
            model = dial.turn(dial.steps).model
        except UsageError as error:
            return error.message
        figures: dict[Quantity, float | None] = {limit.what: self._cost(model, limit.what) for limit in self.limits}
        over = [
            f"{told(what, figure)} {NOUNS[what]}" for what, figure in figures.items() if not self._within(what, figure)
        ]
        if over:
            return f"at its end there are {' and '.join(over)}"
        return (
            "what it saves cannot be told from how much two measurements differ" if self.wish.times else "it sees less"
        )

    def _proposed(self, way: _Way) -> Proposal | None:
        """A way that is measured once more in all; None where it does not keep what was asked for."""
        made, after = way.made, costs(way.made.model, self.shape)
        seconds = None if self.clock is None else self.clock.time(made.model)
        known: dict[Quantity, float | None] = {
            "parameters": after.parameters,
            "macs": after.macs,
            "memory": after.memory,
            "latency": seconds,
        }
        for limit in self.limits:
            if not self._within(limit.what, known[limit.what]):
                again = f"measured once more, it takes {told(limit.what, known[limit.what])}"
                self.left_out.append((way.name, again))
                return None
        return Proposal(way.name, way.source, made.did, after, seconds, made.design, made.calls)

    def _left(self, proposal: Proposal) -> float:
        """How much is left of all figures together."""
        pairs = [(getattr(proposal.after, what), getattr(self.before, what)) for what in FIGURES]
        return sum(log(after / before) for after, before in pairs if after and before)

    def _enough(self, model: nn.Module) -> bool:
        within = all(self._within(limit.what, self._cost(model, limit.what)) for limit in self.limits)
        return within and self._sees(model)

    def _sees(self, model: nn.Module) -> bool:
        if self.wish.sees is None:
            return True
        field = field_of(model, self.shape)
        return field is not None and (field.whole or min(field.height.size, field.width.size) >= self.wish.sees)

    def _within(self, what: Quantity, cost: float | None) -> bool:
        return cost is not None and all(cost <= limit.most for limit in self.limits if limit.what == what)

    def _cost(self, model: nn.Module, what: Quantity) -> float | None:
        if what != "latency":
            return cost_of(model, self.shape, what)
        assert self.clock is not None
        return MARGIN * self.clock.time(model)

    def _saved(self, what: Quantity, share: float) -> Limit:
        now = self.clock.seconds if self.clock is not None and what == "latency" else getattr(self.before, what)
        if now is None:
            raise UsageError(f"The {NOUNS[what]} of {self.given.name} are not known, so that no share can be saved.")
        return Limit(what, (1 - share) * now)


def _classes(given: Given, output: Sequence[int]) -> int:
    """How many classes a network tells apart, by the shape of what it returns first."""
    if len(output) < 2:
        raise UsageError(
            f"{given.name} returns {'a single number' if not output else f'numbers {list(output)}'} first, not scores "
            "[N, classes].",
            mend="Let `forward` return the scores, alone or first.",
        )
    return output[-1] if len(output) == 3 else output[1]  # of tokens, or of places on a map


def _placed(design: ConvNet, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of an operation with a stage's number where it was named."""
    named = {
        key: stage_number(design, value) for key, value in options.items() if key == "stage" and isinstance(value, str)
    }
    return {**options, **named}


def _operated_on(made: Made, shape: tuple[int, ...], name: str, options: Mapping[str, Any], did: str) -> Made:
    """An operation on a network that is no design."""
    if name == "shrink" and set(options) == {"factor"}:
        model, call = narrow(made.model, shape, options["factor"]), f"narrow(model, shape, {options['factor']})"
    elif name == "output-stride":
        model = change_output_stride(made.model, shape, options["stride"]).model
        call = f"change_output_stride(model, shape, {options['stride']}).model"
    else:
        raise UsageError(
            f"{name} changes a design, and this network is code, whose parts cannot be told apart from outside.",
            mend="What can be done with it: --save, --limit, --receptive-field, --output-stride, and --shrink of all.",
        )
    return Made(model, "; ".join(filter(None, (made.did, did))), None, (*made.calls, call))
