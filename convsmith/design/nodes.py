"""The nodes of a network's tree: each is one layer, or a way of joining others.

A leaf says what a layer is, not how PyTorch spells it; `networks.layers.LAYERS` and `networks.blocks.NODES` hold one
function for each `type`. A node takes what channels come, so that the same node fits anywhere.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

Width = Annotated[int, Field(ge=1, le=16_384)]
Kernel = Annotated[int, Field(ge=1, le=63)]
Stride = Annotated[int, Field(ge=1, le=16)]
Padding = Annotated[int, Field(ge=0, le=63)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(gt=0, le=1)]
NormKind = Literal["batch", "group", "layer", "instance", "none"]
PointwiseKind = Literal[
    "relu", "leaky-relu", "relu6", "silu", "gelu", "hard-swish", "tanh", "sigmoid", "hard-sigmoid"
]  # fmt: skip
ActivationKind = PointwiseKind | Literal["none"]
GateKind = Literal["sigmoid", "hard-sigmoid"]
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


class Frozen(BaseModel):
    """Data that cannot change and refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)  # few of all kinds are in any one network


# ------------------------------------------------------------------------------------------------ convolution and norm


class Conv(Frozen):
    """A convolution; `padding: null` keeps the size at stride 1, which needs an odd kernel, and 0 is `valid`."""

    type: Literal["conv"] = "conv"
    width: Width
    kernel: Kernel = 3
    stride: Stride = 1
    padding: Padding | None = None
    dilation: Stride = 1
    groups: Width = 1
    bias: bool = False
    padding_mode: PaddingMode = "zeros"

    @model_validator(mode="after")
    def _padded_evenly(self) -> Conv:
        if self.padding is None and self.kernel % 2 == 0:
            raise ValueError(f"an even kernel ({self.kernel}) has no equal padding on both sides: give an odd one")
        return self


class TransposedConv(Frozen):
    """A transposed convolution; kernel equal to stride multiplies each side by `stride`, windows not overlapping."""

    type: Literal["transposed-conv"] = "transposed-conv"
    width: Width
    kernel: Kernel = 2
    stride: Stride = 2
    padding: Padding = 0
    groups: Width = 1
    bias: bool = False


class Norm(Frozen):
    """A normalisation; `layer` is over the channels of each position; `zero` starts its scale at 0 instead of 1."""

    type: Literal["norm"] = "norm"
    kind: Literal["batch", "group", "layer", "instance"] = "batch"
    zero: bool = False


class Activation(Frozen):
    """A non-linearity; the two of softmax are over channels, and belong at a network's end, if anywhere."""

    type: Literal["activation"] = "activation"
    kind: PointwiseKind | Literal["softmax", "log-softmax"] = "relu"


# -------------------------------------------------------------------------------------------------------------- pooling


class Pool(Frozen):
    """Pooling of windows.

    Args:
        kind: maximum, mean, or one value drawn in proportion to its size while training (Zeiler & Fergus 2013).
        stride: what each side is divided by.
        kernel: side of a window; None is `stride`, so that windows do not overlap.
        padding: of each border, never counted in a mean; None divides each side by `stride`, rounded up.
    """

    type: Literal["pool"] = "pool"
    kind: Literal["max", "average", "stochastic"] = "max"
    stride: Stride = 2
    kernel: Kernel | None = None
    padding: Padding | None = None

    @model_validator(mode="after")
    def _windows(self) -> Pool:
        if self.kernel is None and self.padding is not None:
            raise ValueError("padding needs a kernel: windows of the stride's size take none")
        if self.kernel is not None and self.padding is None and self.kernel % 2 == 0:
            raise ValueError(f"an even kernel ({self.kernel}) has no equal padding on both sides: give `padding`")
        if self.kernel is not None and self.padding is not None and self.padding > self.kernel // 2:
            raise ValueError(f"padding {self.padding} is more than half of kernel {self.kernel}")
        if self.kind == "stochastic" and self.kernel is not None:
            raise ValueError("stochastic pooling is of windows that do not overlap: leave the kernel out")
        return self


class FractionalPool(Frozen):
    """The maximum of windows placed at random, which leave `share` of each side (Graham 2014)."""

    type: Literal["fractional-pool"] = "fractional-pool"
    share: Annotated[float, Field(gt=0, lt=1)] = 0.7
    kernel: Kernel = 2


class BlurPool(Frozen):
    """A binomial filter, then every `stride`-th position, so that small shifts change little (Zhang 2019)."""

    type: Literal["blur-pool"] = "blur-pool"
    stride: Stride = 2
    kernel: Literal[3, 5, 7] = 3


class Median(Frozen):
    """The median of each window of an odd `kernel`, at stride 1, the border repeated; it removes single outliers."""

    type: Literal["median"] = "median"
    kernel: Literal[3, 5, 7] = 3


class GridPool(Frozen):
    """Pooling to a grid of `side` x `side` cells whatever the image's size; side 1 is global pooling."""

    type: Literal["grid-pool"] = "grid-pool"
    kind: Literal["max", "average"] = "average"
    side: Annotated[int, Field(ge=1, le=64)] = 1


# ----------------------------------------------------------------------------------------------------------- the others


class Flatten(Frozen):
    """Joins the `side` x `side` positions of each channel into one vector."""

    type: Literal["flatten"] = "flatten"
    side: Annotated[int, Field(ge=1)] = 1


class Linear(Frozen):
    """A fully connected layer, after flattening; `hidden` says that others follow, which decides how it starts."""

    type: Literal["linear"] = "linear"
    width: Width
    bias: bool = True
    hidden: bool = False


class ClassMaps(Frozen):
    """A score of each class at each position: a 1x1 convolution with bias that starts like a last linear layer."""

    type: Literal["class-maps"] = "class-maps"
    width: Width


class Dropout(Frozen):
    """Values set to zero at random while training; `spatial` drops whole channels (Tompson et al. 2015)."""

    type: Literal["dropout"] = "dropout"
    rate: Rate
    spatial: bool = False


class DropBlock(Frozen):
    """Squares of `size` positions set to zero while training, `rate` of all positions (Ghiasi et al. 2018)."""

    type: Literal["drop-block"] = "drop-block"
    rate: Rate
    size: Kernel = 7


class StochasticDepth(Frozen):
    """At the end of a residual branch: zero for whole images at random while training (Huang et al. 2016)."""

    type: Literal["stochastic-depth"] = "stochastic-depth"
    rate: Rate


class SqueezeExcite(Frozen):
    """Channels weighted by what the whole image shows (Hu et al. 2018).

    Args:
        rate: inner channels as a share of those that come in, at least one.
        width: inner channels, in place of `rate`.
        activation: between its two layers.
        gate: after the second, from 0 to 1.
    """

    type: Literal["squeeze-excite"] = "squeeze-excite"
    rate: Share = 1 / 16
    width: Width | None = None
    activation: PointwiseKind = "relu"
    gate: GateKind = "sigmoid"


class Cbam(Frozen):
    """Attention to channels, then to positions (Woo et al. 2018); `rate` as in `SqueezeExcite`."""

    type: Literal["cbam"] = "cbam"
    rate: Share = 1 / 16
    kernel: Literal[3, 5, 7] = 7


class Eca(Frozen):
    """Attention to channels by a convolution along them (Wang et al. 2020); no kernel: by their number, equation 12."""

    type: Literal["eca"] = "eca"
    kernel: Literal[3, 5, 7, 9] | None = None


class NonLocal(Frozen):
    """Each position as a mean of all, weighted by likeness (Wang et al. 2018, equation 1; Xie et al. 2019).

    Args:
        width: channels in which two positions are compared, after 1x1 convolutions; None compares them as they are.
        value: channels of what is averaged, after a 1x1 convolution; None averages the features as they are.
        softmax: weights by softmax of the likeness; without, the likeness itself over the number of positions.
    """

    type: Literal["non-local"] = "non-local"
    width: Width | None = None
    value: Width | None = None
    softmax: bool = True


class LayerScale(Frozen):
    """A learnt factor for each channel, which starts at `initial` (Touvron et al. 2021, "Going deeper", 2.1)."""

    type: Literal["layer-scale"] = "layer-scale"
    initial: float = 1e-6


class PadChannels(Frozen):
    """Channels of zeros behind those that come, `width` in all: a shortcut without parameters (He et al. 2016)."""

    type: Literal["pad-channels"] = "pad-channels"
    width: Width


class PadSides(Frozen):
    """Zeros to the right and below, up to a multiple of `multiple`, so that whole patches cover the map."""

    type: Literal["pad-sides"] = "pad-sides"
    multiple: Stride


# -------------------------------------------------------------------------------------------------------------- joined


class Sequence(Frozen):
    """Nodes one after another; their names become the names of the parameters. An empty one changes nothing."""

    type: Literal["sequence"] = "sequence"
    parts: tuple[tuple[str, Node], ...]


class Residual(Frozen):
    """`after(body(x) + shortcut(x))`; no shortcut is the identity, no `after` leaves the sum as it is."""

    type: Literal["residual"] = "residual"
    body: Node
    shortcut: Node | None = None
    after: Node | None = None


class Concat(Frozen):
    """Branches side by side on the same input, their channels joined in order; an empty `Sequence` is the input."""

    type: Literal["concat"] = "concat"
    parts: tuple[tuple[str, Node], ...]


Node: TypeAlias = Annotated[
    Conv
    | TransposedConv
    | Norm
    | Activation
    | Pool
    | FractionalPool
    | BlurPool
    | Median
    | GridPool
    | Flatten
    | Linear
    | ClassMaps
    | Dropout
    | DropBlock
    | StochasticDepth
    | SqueezeExcite
    | Cbam
    | Eca
    | NonLocal
    | LayerScale
    | PadChannels
    | PadSides
    | Sequence
    | Residual
    | Concat,
    Field(discriminator="type"),
]
Parts: TypeAlias = tuple[tuple[str, Node], ...]


def channels_after(node: Node, in_channels: int) -> int:
    """How many channels a node leaves of those that come; after flattening, how many features."""
    match node:
        case Conv() | TransposedConv() | Linear() | ClassMaps() | PadChannels():
            return node.width
        case NonLocal():
            return node.value or in_channels
        case Flatten():
            return in_channels * node.side**2
        case Residual():
            return channels_after(node.body, in_channels)
        case Concat():
            return sum(channels_after(part, in_channels) for _, part in node.parts)
        case Sequence():
            for _, part in node.parts:
                in_channels = channels_after(part, in_channels)
            return in_channels
        case _:
            return in_channels


def leaves(node: Node) -> list[Node]:
    """All layers of a tree in the order of their use, shortcuts after the branch that they stand beside."""
    match node:
        case Sequence() | Concat():
            return [leaf for _, part in node.parts for leaf in leaves(part)]
        case Residual():
            joined = (node.body, node.shortcut, node.after)
            return [leaf for part in joined if part is not None for leaf in leaves(part)]
        case _:
            return [node]
