"""What is shown of a network that was looked at without training it: rows, a drawing, and what it would take.

Plain data, made by `networks.outline` and `pipeline.inspecting`, shown by the other `inspection_*` files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["input", "output", "block", "product", "pool", "norm", "activation", "merge", "other"]


@dataclass(frozen=True)
class Seen:
    """A receptive field.

    Args:
        height, width: pixels, at the most.
        stride: pixels from one position's field to the next one's, downwards; None where they are not even.
        offset: centre of the first position's field, in pixels from the centre of the first pixel, downwards.
        whole: whether it is the whole image by construction.
    """

    height: int
    width: int
    stride: float | None
    offset: float
    whole: bool


@dataclass(frozen=True)
class Row:
    """A layer, or several that are one block or stage.

    Args:
        path: of the module.
        type: of the module.
        detail: what it does, in words.
        layers: how many are in it.
        output: shape of what it gives for one image; None where that is no tensor.
        parameters: that are used first here.
        macs: multiply-adds of one image; None is not known.
        activation_bytes: what training keeps of one image because of it; None is not known.
        discards: of what comes in, the greatest share that a downsampling in it drops; None where nothing is smaller.
        field: receptive field of what it gives; None is not known.
    """

    path: str
    type: str
    detail: str
    layers: int
    output: tuple[int, ...] | None
    parameters: int
    macs: int | None
    activation_bytes: int | None
    discards: float | None
    field: Seen | None


@dataclass(frozen=True)
class Node:
    """A layer, block or operation in a drawing.

    Args:
        title: its path within what is drawn, or the operation.
        detail: what it does.
        kind: for the mark it is drawn with.
        output: shape of what it gives for one image.
        share: of all multiply-adds; None is not known.
    """

    title: str
    detail: str
    kind: Kind
    output: tuple[int, ...] | None
    share: float | None = 0.0


@dataclass(frozen=True)
class Drawing:
    """Nodes in the order of execution, and which gives to which."""

    nodes: tuple[Node, ...]
    edges: tuple[tuple[int, int], ...]

    @property
    def branches(self) -> bool:
        """Whether anything is read twice or made from two."""
        from_, to = [one for one, _ in self.edges], [other for _, other in self.edges]
        return len(set(from_)) < len(from_) or len(set(to)) < len(to)


@dataclass(frozen=True)
class Block:
    """A kind of block, drawn once.

    Args:
        type: of its module.
        paths: of all that are built like it.
        drawing: of the first.
    """

    type: str
    paths: tuple[str, ...]
    drawing: Drawing


@dataclass(frozen=True)
class Step:
    """The memory of a training step, in bytes; see `networks.counting.memory.Memory`."""

    precision: str
    optimizer: str
    weights: int
    gradients: int
    state: int
    activations: int
    peak: int


@dataclass(frozen=True)
class Last:
    """The last maps, or tokens, before they are pooled: what they see is what is meant by a network's field.

    Args:
        output: their shape for one image.
        field: None is not known.
        reason: why it is not.
    """

    output: tuple[int, ...]
    field: Seen | None
    reason: str = ""


@dataclass(frozen=True)
class FieldPicture:
    """What a stage sees of the user's picture: the stage's name, a sentence, and a PNG."""

    name: str
    sentence: str
    png: bytes


@dataclass(frozen=True)
class Depths:
    """The signal behind each layer, for one way of starting the values.

    Args:
        name: what was asked for.
        says: what the values are, in words.
        images: how many it was measured on.
        signals: `networks.signal.Signal` records as JSON, in the order of the calls.
    """

    name: str
    says: str
    images: int
    signals: tuple[Mapping[str, Any], ...]

    @property
    def sentence(self) -> str:
        """From the first product to the last: where the signal is lost, or how its variance changes."""
        products = [signal for signal in self.signals if signal["kind"] == "weights"]
        if not products:
            return "No layer in it has weights that multiply."
        for what, missing in (("not finite", lambda value: value is None), ("zero", lambda value: value == 0)):
            lost = [signal for signal in products if missing(signal["variance"])]
            if lost:
                return f"The variance is {what} behind {lost[0]['path']} and {len(lost) - 1} more of {len(products)}."
        first, last = products[0], products[-1]
        low, high = (find(products, key=lambda signal: signal["variance"]) for find in (min, max))
        told = f"{first['variance']:.2g} behind {first['path']}, {last['variance']:.2g} behind {last['path']}"
        return (
            f"Variance {told}; the least {low['variance']:.2g} ({low['path']}), the most {high['variance']:.2g} "
            f"({high['path']})."
        )


@dataclass(frozen=True)
class Inspection:
    """A network that was looked at.

    Args:
        name: what it is called.
        shape: of one image, `(channels, height, width)`.
        notes: what was assumed, and what is not known, as sentences.
        rows: every layer.
        folded: the same as blocks or stages, so that they fit a screen.
        trainable, frozen: parameters.
        macs: multiply-adds of one image; None is not known.
        activation_bytes: what training keeps of one image.
        inference_bytes: the most memory at any moment, for one image, the weights included.
        batch: images in a training step.
        steps: memory of training, by precision and optimiser; empty where it is not known.
        gates: modules in which a global branch multiplies a local map, so that the receptive fields leave it out.
        statistics: norms that look at all positions, which the receptive fields leave out.
        last: the last maps; None where there are none.
        sums: how layers come to their sizes, by path; only for a written line.
        drawing: of the folded network.
        blocks: the kinds of block in it.
        pictures: what the stages see of the user's picture, from the image on.
        values: where the network's values came from for that, in words.
        depths: the signal through depth, for each way of starting that was asked for.
    """

    name: str
    shape: tuple[int, int, int]
    notes: tuple[str, ...]
    rows: tuple[Row, ...]
    folded: tuple[Row, ...]
    trainable: int
    frozen: int
    macs: int | None
    activation_bytes: int | None
    inference_bytes: int | None
    batch: int
    steps: tuple[Step, ...]
    gates: tuple[str, ...]
    statistics: tuple[str, ...]
    drawing: Drawing
    blocks: tuple[Block, ...]
    last: Last | None = None
    sums: Mapping[str, str] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    pictures: tuple[FieldPicture, ...] = ()
    values: str = ""
    depths: tuple[Depths, ...] = ()

    @property
    def parameters(self) -> int:
        """Trainable and frozen ones."""
        return self.trainable + self.frozen

    @property
    def stages(self) -> tuple[Row, ...]:
        """For each size of maps, from the image on, the row from which on they see most."""
        most: dict[tuple[int, int], tuple[Row, Seen]] = {}
        for row in self.folded:
            if row.field is None or row.field.whole or not (sides := self.sides(row.output)):
                continue
            if sides not in most or most[sides][1].height < row.field.height:
                most[sides] = row, row.field
        return tuple(row for row, _ in most.values())

    def field_of_last(self) -> str:
        """What the last maps see, as a clause: `each position of the last 7 × 7 maps can depend on ...`."""
        if self.last is None:
            return "it has no maps in which places are told apart"
        maps = f"{by(sides)} maps" if (sides := self.sides(self.last.output)) else f"{self.last.output[0]} tokens"
        each, field = f"each position of the last {maps}", self.last.field
        if field is None:
            return f"what {each} can depend on is not known: {self.last.reason}"
        if field.whole:
            return f"{each} can depend on all of the image"
        wide, side = max(field.height, field.width), max(self.shape[1:])
        size = f"{field.height} px" if field.height == field.width else f"{field.height} x {field.width} px"
        if wide == side:
            return f"{each} can depend on {size}, the whole image"
        rest = f", more than the image's {side}" if wide > side else f" of the image's {side}"
        return f"{each} can depend on {size}{rest}"

    def sides(self, output: tuple[int, ...] | None) -> tuple[int, int] | None:
        """Height and width of maps, wherever the channels are; None for what is no map, or one of a single position."""
        if output is None or len(output) != 3:
            return None
        ratio = self.shape[1] / self.shape[2]
        first = abs(output[0] / output[1] - ratio) < abs(output[1] / output[2] - ratio)
        height, width = output[:2] if first else output[1:]
        return (height, width) if max(height, width) > 1 else None

    @property
    def sizes(self) -> tuple[Size, ...]:
        """What is spent at each size of maps, from the image on; what comes after them is the last."""
        spent: dict[str, list[Row]] = {}
        for row in self.rows:
            spent.setdefault(by(sides) if (sides := self.sides(row.output)) else "", []).append(row)
        after = spent.pop("", [])
        return tuple(_size(name, rows) for name, rows in [*spent.items(), *([("no maps", after)] if after else [])])

    def to_json(self) -> dict[str, Any]:
        """All that is known, in plain types."""
        return dict(self.record)

    def __str__(self) -> str:
        from convsmith.reporting.inspection_text import as_text, table

        return as_text(table(self))

    def _repr_html_(self) -> str:
        """In a notebook: the figures, and the layers as a table."""
        from convsmith.reporting.inspection_text import notebook

        return notebook(self)


@dataclass(frozen=True)
class SideBySide:
    """Two networks that were looked at."""

    ours: Inspection
    theirs: Inspection

    def to_json(self) -> dict[str, Any]:
        """Both, in plain types."""
        return {"model": self.ours.to_json(), "against": self.theirs.to_json()}

    def __str__(self) -> str:
        from convsmith.reporting.inspection_text import as_text, compared

        return as_text(compared(self.ours, self.theirs))

    def _repr_html_(self) -> str:
        """In a notebook: the figures of both, with their differences."""
        from convsmith.reporting.inspection_text import notebook_compared

        return notebook_compared(self)


@dataclass(frozen=True)
class Size:
    """What is spent at one size of maps."""

    name: str
    layers: int
    parameters: int
    macs: int | None
    activation_bytes: int | None


def _size(name: str, rows: Sequence[Row]) -> Size:
    macs, kept = [row.macs for row in rows], [row.activation_bytes for row in rows]
    return Size(
        name, len(rows), sum(row.parameters for row in rows),
        None if None in macs else sum(filter(None, macs)), None if None in kept else sum(filter(None, kept)),
    )  # fmt: skip


def amount(number: int | None) -> str:
    """A count with three digits and its unit: `412`, `9.41 k`, `118 M`, `4.09 G`; `?` where it is not known."""
    if number is None:
        return "?"
    value, unit = float(number), ""
    for unit in ("", "k", "M", "G", "T"):
        if value < 999.5 or unit == "T":
            break
        value /= 1000
    if not unit:
        return f"{number:,}"
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"


def by(sides: Sequence[int] | None) -> str:
    """A shape as `64 × 112 × 112`; a dash where there is none."""
    return "–" if sides is None else " × ".join(f"{side}" for side in sides) or "one number"
