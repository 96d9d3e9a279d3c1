"""What blocks are made of: where one stands, what all share, and the units that come back in each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from convsmith.design.nodes import (
    Activation,
    ActivationKind,
    Cbam,
    Conv,
    DropBlock,
    Dropout,
    Eca,
    Node,
    Norm,
    NormKind,
    PadChannels,
    PaddingMode,
    PadSides,
    Parts,
    Pool,
    Residual,
    Sequence,
    SqueezeExcite,
    StochasticDepth,
)

AttentionKind = Literal["none", "squeeze-excite", "cbam", "eca"]
ShortcutKind = Literal["conv", "pool", "pad"]
Dropping = Literal["values", "channels", "squares"]


@dataclass(frozen=True)
class Style:
    """What all blocks of a network share.

    Args:
        norm: the normalisation after each convolution; with "none", convolutions have a bias.
        activation: the non-linearity.
        zero_gamma: whether the last norm of each residual branch starts at scale 0.
        bias: whether convolutions have a bias although a norm follows that takes it out again.
        padding_mode: what lies beyond the border for convolutions.
    """

    norm: NormKind = "batch"
    activation: ActivationKind = "relu"
    zero_gamma: bool = False
    bias: bool = False
    padding_mode: PaddingMode = "zeros"


@dataclass(frozen=True)
class Place:
    """Where a block stands: it takes `in_channels`, leaves `width`, and divides each side by `stride`.

    Args:
        in_channels, width, stride, style: as said.
        drop: how often stochastic depth skips the block's residual branch while training.
    """

    in_channels: int
    width: int
    stride: int
    style: Style
    drop: float = 0.0

    @property
    def changes_shape(self) -> bool:
        """Whether what leaves the block cannot be added to what came."""
        return self.stride > 1 or self.in_channels != self.width


def conv(
    style: Style,
    width: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    padding: int | None = None,
    dilation: int = 1,
    groups: int = 1,
    bias: bool | None = None,
) -> Conv:
    """A convolution in the network's style; `bias` None has one where the style says so or no norm is to follow."""
    return Conv(
        width=width,
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=style.bias or style.norm == "none" if bias is None else bias,
        padding_mode=style.padding_mode,
    )


def norm(style: Style, mark: str = "", *, zero: bool = False) -> Parts:
    """The network's normalisation, if it has one."""
    return () if style.norm == "none" else ((f"norm{mark}", Norm(kind=style.norm, zero=zero)),)


def activation(style: Style, mark: str = "") -> Parts:
    """The network's non-linearity, if it has one."""
    return () if style.activation == "none" else ((f"activation{mark}", Activation(kind=style.activation)),)


def conv_norm_act(
    style: Style,
    width: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    padding: int | None = None,
    dilation: int = 1,
    groups: int = 1,
    active: bool = True,
    zero: bool = False,
    mark: str = "",
) -> Parts:
    """Convolution, normalisation, activation: the unit that most blocks are made of.

    Args:
        style: which normalisation and activation.
        width: channels it leaves.
        kernel, stride, padding, dilation, groups: of the convolution, which keeps the size at stride 1.
        active: whether the activation follows.
        zero: whether the norm's scale starts at 0.
        mark: ends the parts' names where a body has several units: "1" gives `conv1`, `norm1`.
    """
    layer = conv(style, width, kernel=kernel, stride=stride, padding=padding, dilation=dilation, groups=groups)
    ending = activation(style, mark) if active else ()
    return ((f"conv{mark}", layer), *norm(style, mark, zero=zero), *ending)


def norm_act_conv(
    style: Style,
    width: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    dilation: int = 1,
    mark: str = "",
) -> Parts:
    """The unit in the order of pre-activation (He et al. 2016, "Identity mappings", figure 4e)."""
    layer = conv(style, width, kernel=kernel, stride=stride, dilation=dilation)
    return (*norm(style, mark), *activation(style, mark), (f"conv{mark}", layer))


def patches(style: Style, width: int, stride: int) -> Parts:
    """Windows of `stride` that do not overlap, each to one position; where sides do not divide, zeros fill them up."""
    layer = conv(style, width, kernel=stride, stride=stride, padding=0, bias=True)
    return (("pad", PadSides(multiple=stride)), ("conv", layer))


def attention(kind: AttentionKind) -> Parts:
    """What weights channels, or channels and positions, at the end of a residual branch."""
    match kind:
        case "none":
            return ()
        case "squeeze-excite":
            return (("attention", SqueezeExcite()),)
        case "cbam":
            return (("attention", Cbam()),)
        case "eca":
            return (("attention", Eca()),)


def dropout(rate: float, dropping: Dropping = "values") -> Parts:
    """What sets values, whole channels or squares of positions to zero while training; none at rate 0."""
    if not rate:
        return ()
    node: Node = DropBlock(rate=rate) if dropping == "squares" else Dropout(rate=rate, spatial=dropping == "channels")
    return (("dropout", node),)


def projection(place: Place, kind: ShortcutKind) -> Node | None:
    """The shortcut beside a residual branch: the identity (None) where the shape stays.

    Args:
        place: where the block stands.
        kind: how a changed shape is matched. `conv` is a 1x1 convolution with the stride (option B of He et al. 2016);
            `pool` averages and then has a 1x1 convolution, which looks at all positions instead of one in four (He et
            al. 2019, figure 2c); `pad` averages and then adds channels of zeros, without parameters (option A, which
            takes one position in four).
    """
    if not place.changes_shape:
        return None
    style, width, stride = place.style, place.width, place.stride
    pool: Parts = (("pool", Pool(kind="average", stride=stride)),) if stride > 1 else ()
    if kind == "pad":
        if width < place.in_channels:
            raise ValueError(f"a shortcut of zeros cannot take {place.in_channels} channels to {width}: use `conv`")
        return Sequence(parts=(*pool, ("pad", PadChannels(width=width))))
    if kind == "pool":
        return Sequence(parts=(*pool, *conv_norm_act(style, width, kernel=1, active=False)))
    return Sequence(parts=conv_norm_act(style, width, kernel=1, stride=stride, active=False))


def branch(place: Place, parts: Parts) -> Sequence:
    """A residual branch, with stochastic depth at its end where the place says so."""
    ending: Parts = (("drop", StochasticDepth(rate=place.drop)),) if place.drop else ()
    return Sequence(parts=(*parts, *ending))


def added(place: Place, parts: Parts, shortcut: Node | None = None, *, active: bool = False) -> Residual:
    """`parts` added to the shortcut; `active` puts the network's activation after the sum."""
    after = activation(place.style) if active else ()
    return Residual(body=branch(place, parts), shortcut=shortcut, after=after[0][1] if after else None)
