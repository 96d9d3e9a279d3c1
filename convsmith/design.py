"""The schema of a network as data: what a recipe says, and the tree of typed nodes it stands for.

There are two levels. A `ConvNet` is what people write: a stem, stages of one kind of block each, a head. `tree` expands
it into nodes (convolution, norm, sequence, residual ...), which are what gets built, counted and later drawn or edited.
A new block is a function that returns nodes and one row of `BLOCKS`; only a new kind of layer needs a new node.

Nothing here knows PyTorch, so that recipes are checked and described without loading it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_serializer, field_validator, model_validator

from convsmith.errors import UsageError
from convsmith.registry import Entry, Registry

Width = Annotated[int, Field(ge=1, le=16_384)]
Kernel = Annotated[int, Field(ge=1, le=63)]
Stride = Annotated[int, Field(ge=1, le=16)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Scalar = bool | int | float | str
NormKind = Literal["batch", "group", "none"]
ActivationKind = Literal["relu", "leaky-relu", "silu", "gelu", "tanh"]


class Frozen(BaseModel):
    """Data that cannot change and refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# ---------------------------------------------------------------------------------------------------------------- nodes


class Conv(Frozen):
    """A convolution; `padding: null` keeps the size at stride 1, which needs an odd kernel."""

    type: Literal["conv"] = "conv"
    width: Width
    kernel: Kernel = 3
    stride: Stride = 1
    padding: Annotated[int, Field(ge=0)] | None = None
    dilation: Stride = 1
    groups: Width = 1
    bias: bool = False

    @model_validator(mode="after")
    def _padded_evenly(self) -> Conv:
        if self.padding is None and self.kernel % 2 == 0:
            raise ValueError(f"an even kernel ({self.kernel}) has no equal padding on both sides: give an odd one")
        return self


class Norm(Frozen):
    """A normalisation of channels; `zero` starts its scale at 0 instead of 1."""

    type: Literal["norm"] = "norm"
    kind: Literal["batch", "group"] = "batch"
    zero: bool = False


class Activation(Frozen):
    type: Literal["activation"] = "activation"
    kind: ActivationKind = "relu"


class Pool(Frozen):
    """Pooling of windows that do not overlap: each side is divided by `stride`, rounded up."""

    type: Literal["pool"] = "pool"
    kind: Literal["max", "average"] = "max"
    stride: Stride = 2


class GridPool(Frozen):
    """Pooling to a grid of `side` x `side` cells whatever the image's size; side 1 is global pooling."""

    type: Literal["grid-pool"] = "grid-pool"
    kind: Literal["max", "average"] = "average"
    side: Annotated[int, Field(ge=1, le=64)] = 1


class Flatten(Frozen):
    """Joins the `side` x `side` positions of each channel into one vector."""

    type: Literal["flatten"] = "flatten"
    side: Annotated[int, Field(ge=1)] = 1


class Linear(Frozen):
    type: Literal["linear"] = "linear"
    width: Width
    bias: bool = True


class Dropout(Frozen):
    type: Literal["dropout"] = "dropout"
    rate: Rate


class Sequence(Frozen):
    """Nodes one after another; their names become the names of the parameters."""

    type: Literal["sequence"] = "sequence"
    parts: tuple[tuple[str, Node], ...]


class Residual(Frozen):
    """`after(body(x) + shortcut(x))`; no shortcut is the identity, no `after` leaves the sum as it is."""

    type: Literal["residual"] = "residual"
    body: Node
    shortcut: Node | None = None
    after: Node | None = None


Node: TypeAlias = Annotated[
    Conv | Norm | Activation | Pool | GridPool | Flatten | Linear | Dropout | Sequence | Residual,
    Field(discriminator="type"),
]
Parts: TypeAlias = tuple[tuple[str, Node], ...]
Sequence.model_rebuild()
Residual.model_rebuild()


# --------------------------------------------------------------------------------------------------------------- blocks


@dataclass(frozen=True)
class Style:
    """What all blocks of a network share.

    Args:
        norm: the normalisation after each convolution; with "none", convolutions have a bias.
        activation: the non-linearity.
        zero_gamma: whether the last norm of each residual branch starts at scale 0.
    """

    norm: NormKind = "batch"
    activation: ActivationKind = "relu"
    zero_gamma: bool = False


@dataclass(frozen=True)
class Place:
    """Where a block stands: it takes `in_channels`, leaves `width`, and divides each side by `stride`."""

    in_channels: int
    width: int
    stride: int
    style: Style


def conv_norm_act(
    style: Style,
    width: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    active: bool = True,
    zero: bool = False,
    mark: str = "",
) -> Parts:
    """Convolution, normalisation, activation: the unit that most blocks are made of.

    Args:
        style: which normalisation and activation.
        width: channels it leaves.
        kernel, stride: of the convolution, which keeps the size at stride 1.
        active: whether the activation follows.
        zero: whether the norm's scale starts at 0.
        mark: ends the parts' names where a body has several units: "1" gives `conv1`, `norm1`.
    """
    parts: list[tuple[str, Node]] = [
        (f"conv{mark}", Conv(width=width, kernel=kernel, stride=stride, bias=style.norm == "none"))
    ]
    if style.norm != "none":
        parts.append((f"norm{mark}", Norm(kind=style.norm, zero=zero)))
    if active:
        parts.append((f"activation{mark}", Activation(kind=style.activation)))
    return tuple(parts)


def plain(place: Place, *, kernel: int = 3) -> Node:
    """One convolution, norm and activation."""
    return Sequence(parts=conv_norm_act(place.style, place.width, kernel=kernel, stride=place.stride))


def residual(place: Place, *, kernel: int = 3, shortcut: Literal["conv", "pool"] = "conv") -> Node:
    """Two convolutions beside a shortcut: the basic block of ResNet (He et al. 2016, figure 2 and section 4.1).

    The shortcut is the identity where the shape stays (option A would pad channels; this is option B, which projects).

    Args:
        place: where the block stands.
        kernel: of both convolutions.
        shortcut: how a changed shape is projected: a 1x1 convolution with the stride, or average pooling and then a
            1x1 convolution, which looks at all positions instead of one in four (He et al. 2019, figure 2c).
    """
    style, width = place.style, place.width
    body = (
        *conv_norm_act(style, width, kernel=kernel, stride=place.stride, mark="1"),
        *conv_norm_act(style, width, kernel=kernel, active=False, zero=style.zero_gamma, mark="2"),
    )
    return Residual(
        body=Sequence(parts=body),
        shortcut=_projection(place, shortcut),
        after=Activation(kind=style.activation),
    )


def _projection(place: Place, kind: str) -> Node | None:
    if kind not in ("conv", "pool"):
        raise ValueError(f"shortcut is {kind!r}; known: conv, pool")
    if place.stride == 1 and place.in_channels == place.width:
        return None
    if kind == "conv" or place.stride == 1:
        return Sequence(parts=conv_norm_act(place.style, place.width, kernel=1, stride=place.stride, active=False))
    pool = ("pool", Pool(kind="average", stride=place.stride))
    return Sequence(parts=(pool, *conv_norm_act(place.style, place.width, kernel=1, active=False)))


BLOCKS = Registry(
    "block",
    [
        Entry("plain", plain, "convolution, norm, activation", "Simonyan & Zisserman 2015; Ioffe & Szegedy 2015"),
        Entry("residual", residual, "two convolutions beside a shortcut", "He et al. 2016, section 4.1"),
    ],
)


# --------------------------------------------------------------------------------------------------------------- design


class Stem(Frozen):
    """The first convolution, on the image itself."""

    width: Width
    kernel: Kernel = 3
    stride: Stride = 1

    @field_validator("kernel")
    @classmethod
    def _odd(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            raise ValueError(f"kernel {kernel} is even: give an odd one, so that padding is equal on both sides")
        return kernel


class Stage(Frozen):
    """Blocks of one kind and width; the first of them divides the image's sides by `stride`.

    Args:
        block: a name from `BLOCKS`.
        width: channels each block leaves.
        depth: how many blocks.
        stride: what each side of the image is divided by, once.
        downsample: whether the first block strides, or a pooling before it does the dividing.
        options: the block's own options, such as `{kernel: 5}`; given and written as a mapping.
    """

    block: str = "residual"
    width: Width
    depth: Annotated[int, Field(ge=1, le=200)] = 1
    stride: Stride = 1
    downsample: Literal["stride", "max", "average"] = "stride"
    options: tuple[tuple[str, Scalar], ...] = ()

    @field_validator("options", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        return tuple(sorted(value.items(), key=str)) if isinstance(value, Mapping) else value

    @field_serializer("options")
    def _mapping(self, value: tuple[tuple[str, Scalar], ...]) -> dict[str, Scalar]:
        return dict(value)

    @model_validator(mode="after")
    def _expands(self) -> Stage:
        """Expand the block once, so that a wrong name, option or value is refused here and not at the build."""
        try:
            self.at(Place(1, self.width, self.stride, Style()))
        except ValidationError as error:
            raise ValueError(f"block {self.block!r}: {_plainly(error)}") from None
        except UsageError as error:
            raise ValueError(str(error)) from None
        return self

    def at(self, place: Place) -> Node:
        """Return the nodes of one block of this stage, standing at `place`."""
        options = dict(self.options)
        if "place" in options:  # a parameter of every block, and no option of any
            raise UsageError(f"block {self.block!r} has no option 'place'.")
        return BLOCKS.build(self.block, place, **options)


class PooledHead(Frozen):
    """Global pooling, then one linear layer: takes images of any size (Lin et al. 2014, section 3.2)."""

    kind: Literal["average", "max"] = "average"
    dropout: Rate = 0.0


class FlattenHead(Frozen):
    """Pooling to a grid, then linear layers that know where in the image a feature was.

    Args:
        grid: cells along each side; the first linear layer reads `grid` squared positions of every channel.
        hidden: widths of linear layers with activation before the last one.
        dropout: before each linear layer.
    """

    kind: Literal["flatten"] = "flatten"
    grid: Annotated[int, Field(ge=1, le=64)] = 4
    hidden: tuple[Width, ...] = ()
    dropout: Rate = 0.0


Head: TypeAlias = Annotated[PooledHead | FlattenHead, Field(discriminator="kind")]


class ConvNet(Frozen):
    """A convolutional network as data.

    Example:
        >>> design = parse({"stem": {"width": 16}, "stages": [{"width": 16}, {"width": 32, "stride": 2}]})
        >>> design.describe()
        'conv3x3 16, residual 16, residual 32 /2, average, linear (batch norm, relu)'
    """

    stem: Stem
    stages: tuple[Stage, ...]
    head: Head = PooledHead()
    norm: NormKind = "batch"
    activation: ActivationKind = "relu"
    zero_gamma: bool = False

    @field_validator("stages")
    @classmethod
    def _some(cls, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        if not stages:
            raise ValueError("a network needs at least one stage")
        return stages

    @property
    def style(self) -> Style:
        """What all its blocks share."""
        return Style(self.norm, self.activation, self.zero_gamma)

    @property
    def stride(self) -> int:
        """What each side of an image has been divided by when it reaches the head."""
        return math.prod((self.stem.stride, *(stage.stride for stage in self.stages)))

    def describe(self) -> str:
        """The network in one line of text."""
        stem = f"conv{self.stem.kernel}x{self.stem.kernel} {self.stem.width}{_by(self.stem.stride)}"
        norm = "no norm" if self.norm == "none" else f"{self.norm} norm"
        return (
            ", ".join((stem, *map(_stage_text, self.stages), *_head_text(self.head))) + f" ({norm}, {self.activation})"
        )


def tree(design: ConvNet, in_channels: int, outputs: int) -> Node:
    """Expand a design into the nodes it stands for, named `stem`, `stages` and `head`.

    Args:
        design: the network.
        in_channels: channels of the images.
        outputs: how many logits the head gives.
    """
    stem = conv_norm_act(design.style, design.stem.width, kernel=design.stem.kernel, stride=design.stem.stride)
    stages: list[tuple[str, Node]] = []
    channels = design.stem.width
    for number, stage in enumerate(design.stages):
        stages.append((str(number), _blocks(stage, channels, design.style)))
        channels = stage.width
    return Sequence(
        parts=(
            ("stem", Sequence(parts=stem)),
            ("stages", Sequence(parts=tuple(stages))),
            ("head", Sequence(parts=_head(design, outputs))),
        )
    )


def doubling(
    *,
    width: int,
    depth: int,
    stages: int,
    first_stride: int = 1,
    stem: int | None = None,
    widest: int = 512,
    block: str = "residual",
    **others: Any,
) -> ConvNet:
    """Return the usual pyramid: each stage after the first halves the image and doubles the width.

    Args:
        width: of the first stage.
        depth: blocks in each stage.
        stages: how many.
        first_stride: what the first stage divides the sides by.
        stem: width of the stem; that of the first stage where `None`.
        widest: where doubling stops.
        block: a name from `BLOCKS`.
        others: further fields of `ConvNet` (`head`, `norm`, `activation`, `zero_gamma`).
    """
    rows = [
        {
            "block": block,
            "width": min(width * 2**number, max(width, widest)),
            "depth": depth,
            "stride": 2 if number else first_stride,
        }
        for number in range(stages)
    ]
    return parse({"stem": {"width": stem or width}, "stages": rows, **others})


def parse(values: Mapping[str, Any]) -> ConvNet:
    """Read a design from plain values, such as a YAML file's.

    Raises:
        UsageError: the values do not describe a network; every fault is named with its place.
    """
    try:
        return ConvNet.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"The network's design is wrong: {_plainly(error)}.") from None


def _blocks(stage: Stage, in_channels: int, style: Style) -> Sequence:
    parts: list[tuple[str, Node]] = []
    stride = stage.stride
    if stride > 1 and stage.downsample != "stride":
        parts.append(("pool", Pool(kind=stage.downsample, stride=stride)))
        stride = 1
    for number in range(stage.depth):
        parts.append((str(number), stage.at(Place(in_channels, stage.width, stride, style))))
        in_channels, stride = stage.width, 1
    return Sequence(parts=tuple(parts))


def _head(design: ConvNet, outputs: int) -> Parts:
    head = design.head
    drop: Parts = (("dropout", Dropout(rate=head.dropout)),) if head.dropout else ()
    if isinstance(head, PooledHead):
        pool: Parts = (("pool", GridPool(kind=head.kind)), ("flatten", Flatten()))
        return (*pool, *drop, ("linear", Linear(width=outputs)))
    parts: list[tuple[str, Node]] = [("pool", GridPool(side=head.grid)), ("flatten", Flatten(side=head.grid))]
    for number, width in enumerate(head.hidden):
        parts += [(f"{name}{number}", node) for name, node in drop]
        parts += [(f"linear{number}", Linear(width=width)), (f"activation{number}", Activation(kind=design.activation))]
    return (*parts, *drop, ("linear", Linear(width=outputs)))


def _by(stride: int) -> str:
    return f" /{stride}" if stride > 1 else ""


def _stage_text(stage: Stage) -> str:
    depth = f"{stage.depth} x " if stage.depth > 1 else ""
    options = "".join(f" {name}={value}" for name, value in stage.options)
    pool = f" by {stage.downsample} pooling" if stage.stride > 1 and stage.downsample != "stride" else ""
    return f"{depth}{stage.block} {stage.width}{options}{_by(stage.stride)}{pool}"


def _head_text(head: Head) -> tuple[str, ...]:
    drop = (f"dropout {head.dropout:g}",) if head.dropout else ()
    if isinstance(head, PooledHead):
        return (head.kind, *drop, "linear")
    return (f"flatten {head.grid}x{head.grid}", *(f"linear {width}" for width in head.hidden), *drop, "linear")


def _plainly(error: ValidationError) -> str:
    """A validation error as one sentence: where, what, and the value given."""
    faults = []
    for fault in error.errors(include_url=False):
        place = ".".join(str(step) for step in fault["loc"])
        text = fault["msg"].removeprefix("Value error, ")
        given = "" if isinstance(fault["input"], (Mapping, list, tuple, BaseModel)) else f" (given: {fault['input']!r})"
        faults.append(f"{place}: {text}{given}" if place else text)
    return "; ".join(faults)
