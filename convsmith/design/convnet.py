"""A convolutional network as people write it: a stem, stages of one kind of block each, a head."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
    validate_call,
)

from convsmith.design import units
from convsmith.design.blocks import BLOCKS
from convsmith.design.ends import FlattenHead, Head, PooledHead, Stem
from convsmith.design.nodes import (
    ActivationKind,
    BlurPool,
    Frozen,
    Node,
    NormKind,
    PaddingMode,
    Parts,
    Pool,
    Rate,
    Sequence,
    StochasticDepth,
    Stride,
    Width,
    channels_after,
    leaves,
)
from convsmith.design.units import Place, Style
from convsmith.errors import UsageError

Scalar = bool | int | float | str
Option = Scalar | tuple[Scalar, ...]
Downsample = Literal["stride", "max", "average", "blur", "patchify", "transition"]


class Stage(Frozen):
    """Blocks of one kind and width; at its beginning the image's sides are divided by `stride`.

    Args:
        block: a name from `BLOCKS`.
        width: channels each block leaves; None keeps those that come, or adds what the block's options say.
        depth: how many blocks.
        stride: what each side of the image is divided by, once.
        downsample: what does the dividing: the first block itself; pooling before it (`max`, `average`, `blur`);
            `patchify`, a norm and patches that do not overlap (Liu et al. 2022, section 2.2); `transition`, norm,
            activation, 1x1 convolution and average pooling (Huang et al. 2017, section 3), to half of the channels
            where the stage has no width.
        stochastic_depth: how often each residual branch of the stage is skipped while training; None is as the network
            says.
        options: the block's own options, such as `{kernel: 5}`; given and written as a mapping.
    """

    block: str = "residual"
    width: Width | None = None
    depth: Annotated[int, Field(ge=1, le=200)] = 1
    stride: Stride = 1
    downsample: Downsample = "stride"
    stochastic_depth: Rate | None = None
    options: tuple[tuple[str, Option], ...] = ()

    @field_validator("options", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        return tuple(sorted(value.items(), key=str)) if isinstance(value, Mapping) else value

    @field_serializer("options")
    def _mapping(self, value: tuple[tuple[str, Option], ...]) -> dict[str, Option]:
        return dict(value)

    @model_validator(mode="after")
    def _known(self) -> Stage:
        """Refuse a wrong name here and not at the build; values are checked where the block's place is known."""
        options = dict(self.options)
        try:
            tags = BLOCKS[self.block].tags
            if "place" in options:  # a parameter of every block, and no option of any
                raise UsageError(f"block {self.block!r} has no option 'place'.")
            BLOCKS.check(self.block, options)
        except UsageError as error:
            raise ValueError(str(error)) from None
        free = {"keeps": "it leaves as many channels as come", "grows": "`growth` says what it adds"}
        for tag, why in free.items():
            if tag in tags and self.width is not None and self.downsample not in ("patchify", "transition"):
                raise ValueError(f"block {self.block!r} takes no width: {why}")
        if self.stride > 1 and self.downsample == "stride" and "unstrided" in tags:
            raise ValueError(f"block {self.block!r} cannot stride: say what divides, such as `downsample: average`")
        return self

    def at(self, place: Place) -> Node:
        """Return the nodes of one block of this stage, standing at `place`.

        Raises:
            ValueError: an option's value does not fit; the text begins with its place.
        """
        try:
            return _checked(self.block)(place, **dict(self.options))
        except ValidationError as error:
            location, text = faults(error)[0]
            named = any(location[:1] == (name,) for name, _ in self.options)  # else it is a node that refuses them
            key = "".join(f".{step}" for step in location) if named else ""
            raise ValueError(f".options{key}: block {self.block!r}: {text}") from None
        except ValueError as error:
            raise ValueError(f": block {self.block!r}: {error}") from None

    def nodes(self, channels: int, style: Style, drops: Iterator[float]) -> Sequence:
        """Return all its blocks, after what divides the sides where that is not the first of them.

        Args:
            channels: those that come in.
            style: what the network's blocks share.
            drops: how often each block's residual branch is skipped, taken from the front.
        """
        parts: list[tuple[str, Node]] = []
        stride = self.stride
        if stride > 1 and self.downsample != "stride":
            parts.append(self._downsampling(channels, style))
            channels, stride = channels_after(parts[0][1], channels), 1
        for number in range(self.depth):
            drop = next(drops) if self.stochastic_depth is None else self.stochastic_depth
            parts.append((str(number), self.at(Place(channels, self.width or channels, stride, style, drop))))
            channels, stride = channels_after(parts[-1][1], channels), 1
        return Sequence(parts=tuple(parts))

    def _downsampling(self, channels: int, style: Style) -> tuple[str, Node]:
        match self.downsample:
            case "patchify":
                layers = (*units.norm(style), *units.patches(style, self.width or channels, self.stride))
                return ("patches", Sequence(parts=layers))
            case "transition":
                narrow = units.norm_act_conv(style, self.width or max(1, channels // 2), kernel=1)
                return ("transition", Sequence(parts=(*narrow, ("pool", Pool(kind="average", stride=self.stride)))))
            case "blur":
                return ("pool", BlurPool(stride=self.stride))
            case "max":
                return ("pool", Pool(kind="max", stride=self.stride))
            case _:
                return ("pool", Pool(kind="average", stride=self.stride))

    def describe(self) -> str:
        """The stage in a few words."""
        depth = f"{self.depth} x " if self.depth > 1 else ""
        width = f" {self.width}" if self.width else ""
        options = "".join(f" {name}={_value(value)}" for name, value in self.options)
        drop = "" if self.stochastic_depth is None else f" stochastic depth {self.stochastic_depth:g}"
        named = {"patchify": "patches", "transition": "a transition"}
        how = named.get(self.downsample, f"{self.downsample} pooling")
        by = f" by {how}" if self.stride > 1 and self.downsample != "stride" else ""
        return f"{depth}{self.block}{width}{options}{drop}{f' /{self.stride}' if self.stride > 1 else ''}{by}"


class ConvNet(Frozen):
    """A convolutional network as data.

    Args:
        stem: the first layers; None hands the image to the stages as it is.
        stages: blocks by resolution; none at all only before a `flatten` head, which makes a multi-layer perceptron.
        head: from features to logits.
        norm, activation, zero_gamma, bias, padding_mode: what all blocks share, as in `Style`.
        stochastic_depth: how often the last block's residual branch is skipped while training; it rises to that in
            equal steps from block to block (Huang et al. 2016, equation 4).

    Example:
        >>> design = parse({"stem": {"width": 16}, "stages": [{"width": 16}, {"width": 32, "stride": 2}]})
        >>> design.describe()
        'conv3x3 16, residual 16, residual 32 /2, average, linear (batch norm, relu)'
    """

    stem: Stem | None
    stages: tuple[Stage, ...]
    head: Head = PooledHead()
    norm: NormKind = "batch"
    activation: ActivationKind = "relu"
    zero_gamma: bool = False
    bias: bool = False
    padding_mode: PaddingMode = "zeros"
    stochastic_depth: Rate = 0.0

    @model_validator(mode="after")
    def _expands(self) -> ConvNet:
        """Expand the network once, so that what does not fit its place is refused here and not at the build."""
        if not self.stages and not isinstance(self.head, FlattenHead):
            raise ValueError("stages: a network needs at least one stage, or a head of kind `flatten`")
        for number, stage, nodes in _stages(self, 3):
            if stage.stochastic_depth and not _drops(nodes):
                raise ValueError(f"stages.{number}: block {stage.block!r} has no residual branch to skip")
        if self.stochastic_depth and not _drops(tree(self, 3, 1)):
            raise ValueError("stochastic_depth: no block of this network has a residual branch to skip")
        return self

    @property
    def style(self) -> Style:
        """What all its blocks share."""
        return Style(self.norm, self.activation, self.zero_gamma, self.bias, self.padding_mode)

    @property
    def stride(self) -> int:
        """What each side of an image has been divided by when it reaches the head."""
        return math.prod((self.stem.divides if self.stem else 1, *(stage.stride for stage in self.stages)))

    def describe(self) -> str:
        """The network in one line of text."""
        stem = (self.stem.describe(),) if self.stem else ()
        shared = ["no norm" if self.norm == "none" else f"{self.norm} norm"]
        shared.append("no activation" if self.activation == "none" else self.activation)
        if self.bias:
            shared.append("biases")
        if self.padding_mode != "zeros":
            shared.append(f"{self.padding_mode} padding")
        if self.stochastic_depth:
            shared.append(f"stochastic depth {self.stochastic_depth:g}")
        parts = (*stem, *(stage.describe() for stage in self.stages), *self.head.describe())
        return f"{', '.join(parts)} ({', '.join(shared)})"


def tree(design: ConvNet, in_channels: int, outputs: int) -> Node:
    """Expand a design into the nodes it stands for, named `stem`, `stages` and `head`.

    Args:
        design: the network; a part that it has not is left out.
        in_channels: channels of the images.
        outputs: how many logits the head gives.
    """
    parts: list[tuple[str, Node]] = []
    if design.stem:
        parts.append(("stem", Sequence(parts=design.stem.parts(design.style))))
    if design.stages:
        stages: Parts = tuple((str(number), nodes) for number, _, nodes in _stages(design, in_channels))
        parts.append(("stages", Sequence(parts=stages)))
    parts.append(("head", Sequence(parts=design.head.parts(design.style, outputs))))
    return Sequence(parts=tuple(parts))


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
        raise UsageError(f"The network's design is wrong: {plainly(error)}.") from None


def faults(error: ValidationError) -> list[tuple[tuple[str | int, ...], str]]:
    """The places and texts of a validation error, each text with the value given where that is short."""
    known = sorted({name for part in (ConvNet, Stage, Stem, PooledHead, FlattenHead) for name in part.model_fields})
    found: list[tuple[tuple[str | int, ...], str]] = []
    for fault in error.errors(include_url=False):
        if fault["type"] == "extra_forbidden":
            close = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1)
            meant = f" ({close[0]}?)" if close and close[0] != fault["loc"][-1] else ""
            found.append((fault["loc"], f"there is no such key here{meant}"))
            continue
        text = fault["msg"].removeprefix("Value error, ")
        plain = isinstance(fault["input"], (Mapping, list, tuple, BaseModel)) or fault["type"] == "value_error"
        found.append((fault["loc"], text if plain else f"{text} (given: {fault['input']!r})"))
    return found


def plainly(error: ValidationError) -> str:
    """A validation error as one sentence: where, what, and the value given."""
    told = []
    for location, text in faults(error):
        place = ".".join(str(step) for step in location)
        told.append(f"{place}: {text}" if place else text)
    return "; ".join(told)


def _stages(design: ConvNet, in_channels: int) -> Iterator[tuple[int, Stage, Sequence]]:
    """Each stage with its number and nodes, standing on those before it."""
    channels = (
        channels_after(Sequence(parts=design.stem.parts(design.style)), in_channels) if design.stem else in_channels
    )
    blocks = sum(stage.depth for stage in design.stages)
    for number, stage in enumerate(design.stages):
        first = sum(before.depth for before in design.stages[:number])
        drops = (design.stochastic_depth * (first + block + 1) / blocks for block in range(stage.depth))
        try:
            nodes = stage.nodes(channels, design.style, drops)
        except ValueError as error:
            raise ValueError(f"stages.{number}{error}") from None
        yield number, stage, nodes
        channels = channels_after(nodes, channels)


@cache
def _checked(block: str) -> Callable[..., Node]:
    """A block's function, which now checks its options by their annotations; making it takes 2 ms, so it is kept."""
    return validate_call(BLOCKS[block].load())


def _drops(node: Node) -> bool:
    return any(isinstance(leaf, StochasticDepth) for leaf in leaves(node))


def _value(value: Option) -> str:
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)
