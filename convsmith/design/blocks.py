"""The kinds of block: each a function from a place to nodes, and one row of `BLOCKS`.

Options are checked against the annotations, so that what YAML gives is refused with its name and value.
Tags say what a block cannot do: `keeps` leaves as many channels as come and `grows` adds to them, so neither takes a
width; `unstrided` does not divide sides itself, so the stage says by which pooling.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from convsmith.design import units
from convsmith.design.nodes import (
    Concat,
    Kernel,
    LayerScale,
    Median,
    Node,
    NonLocal,
    Padding,
    Parts,
    Pool,
    Rate,
    Residual,
    Sequence,
    Share,
    SqueezeExcite,
    Stride,
    Width,
)
from convsmith.design.units import (
    AttentionKind,
    Dropping,
    Place,
    ShortcutKind,
    added,
    conv_norm_act,
    norm_act_conv,
    projection,
)
from convsmith.registry import Entry, Registry

Expansion = Annotated[float, Field(ge=0.125, le=16)]


def plain(
    place: Place,
    *,
    kernel: Kernel = 3,
    padding: Padding | None = None,
    dilation: Stride = 1,
    groups: Width = 1,
    pool: Literal["none", "max", "average"] = "none",
    dropout: Rate = 0.0,
    dropping: Dropping = "values",
) -> Node:
    """One convolution, norm and activation, with pooling and dropout where asked for.

    Args:
        place: where the block stands.
        kernel, padding, dilation, groups: of the convolution; padding 0 is `valid`.
        pool: what divides the sides, after the activation and in place of the convolution's stride.
        dropout: rate at the end.
        dropping: what is dropped: values, whole channels, or squares of positions.
    """
    pooled = pool != "none"
    if pooled and place.stride == 1:
        raise ValueError(f"pool is {pool!r}, but the stage's stride is 1, so there is nothing to pool: set its stride")
    parts = conv_norm_act(
        place.style,
        place.width,
        kernel=kernel,
        stride=1 if pooled else place.stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )
    pooling: Parts = (("pool", Pool(kind=pool, stride=place.stride)),) if pool != "none" else ()
    return Sequence(parts=(*parts, *pooling, *units.dropout(dropout, dropping)))


def residual(
    place: Place,
    *,
    kernel: Kernel = 3,
    dilation: Stride = 1,
    shortcut: ShortcutKind = "conv",
    attention: AttentionKind = "none",
    dropout: Rate = 0.0,
    dropping: Dropping = "values",
) -> Node:
    """Two convolutions beside a shortcut: the basic block of ResNet (He et al. 2016, figure 2 and section 4.1).

    Args:
        place: where the block stands.
        kernel, dilation: of both convolutions.
        shortcut: what matches a changed shape: see `units.projection`.
        attention: at the end of the branch (Hu et al. 2018, figure 3).
        dropout, dropping: between the convolutions.
    """
    style, width = place.style, place.width
    body = (
        *conv_norm_act(style, width, kernel=kernel, stride=place.stride, dilation=dilation, mark="1"),
        *units.dropout(dropout, dropping),
        *conv_norm_act(style, width, kernel=kernel, dilation=dilation, active=False, zero=style.zero_gamma, mark="2"),
        *units.attention(attention),
    )
    return added(place, body, projection(place, shortcut), active=True)


def bottleneck(
    place: Place,
    *,
    kernel: Kernel = 3,
    ratio: Annotated[float, Field(gt=0, le=4)] = 0.25,
    groups: Width = 1,
    dilation: Stride = 1,
    shortcut: ShortcutKind = "conv",
    attention: AttentionKind = "none",
) -> Node:
    """1x1 to fewer channels, 3x3, 1x1 back, beside a shortcut (He et al. 2016, figure 5; in groups: Xie et al. 2017).

    The stride is the 3x3 convolution's, not the first one's, as in nearly all weights that are published.

    Args:
        place: where the block stands.
        kernel, groups, dilation: of the convolution in the middle.
        ratio: its channels as a share of those that the block leaves.
        shortcut, attention: as in `residual`.
    """
    style, inner = place.style, max(1, round(place.width * ratio))
    if inner % groups:
        raise ValueError(f"{inner} inner channels ({ratio:g} of {place.width}) do not divide into {groups} groups")
    body = (
        *conv_norm_act(style, inner, kernel=1, mark="1"),
        *conv_norm_act(
            style, inner, kernel=kernel, stride=place.stride, dilation=dilation, groups=groups, mark="2"
        ),
        *conv_norm_act(style, place.width, kernel=1, active=False, zero=style.zero_gamma, mark="3"),
        *units.attention(attention),
    )  # fmt: skip
    return added(place, body, projection(place, shortcut), active=True)


def preactivation(
    place: Place,
    *,
    kernel: Kernel = 3,
    dilation: Stride = 1,
    dropout: Rate = 0.0,
    dropping: Dropping = "values",
    attention: AttentionKind = "none",
) -> Node:
    """Norm and activation before each of two convolutions, nothing after the sum (He et al. 2016, figure 4e).

    Where the shape changes, the first norm and activation serve the branch and a 1x1 shortcut alike, as in the authors'
    code and in wide residual networks (Zagoruyko & Komodakis 2016). No norm ends the branch, so `zero_gamma` has
    nothing to act on. After the last block a stage of `norm-act` belongs.

    Args:
        place: where the block stands.
        kernel, dilation: of both convolutions.
        dropout, dropping: between the convolutions, after the second activation.
        attention: at the end of the branch.
    """
    style, width = place.style, place.width
    first = (*units.norm(style, "1"), *units.activation(style, "1"))
    strided = units.conv(style, width, kernel=kernel, stride=place.stride, dilation=dilation)
    rest = (
        ("conv1", strided),
        *units.norm(style, "2"),
        *units.activation(style, "2"),
        *units.dropout(dropout, dropping),
        ("conv2", units.conv(style, width, kernel=kernel, dilation=dilation)),
        *units.attention(attention),
    )
    if not place.changes_shape:
        return added(place, (*first, *rest))
    shortcut = units.conv(style, width, kernel=1, stride=place.stride)
    return Sequence(parts=(*first, ("sum", added(place, rest, shortcut))))


def inception(place: Place, *, branches: tuple[Width, ...] = (), wide: Kernel = 5) -> Node:
    """1x1, 3x3, 5x5 and pooling side by side, their channels joined (Szegedy et al. 2015, figure 2b).

    Args:
        place: where the block stands; its width is the sum of the branches'.
        branches: channels of the 1x1 branch, before and of the 3x3, before and of the 5x5, and after pooling; without,
            the width is divided in the proportions of the paper's first module (its table 1, `3a`).
        wide: kernel of the third branch.
    """
    style, width, stride = place.style, place.width, place.stride
    if not branches:
        if width < 4:
            raise ValueError(f"four branches cannot share {width} channels: give at least 4")
        single, five = max(1, width // 4), max(1, width // 8)
        three = width - single - 2 * five
        branches = (single, max(1, three * 3 // 4), three, max(1, five // 2), five, five)
    if len(branches) != 6:
        raise ValueError(
            f"branches has {len(branches)} numbers; it takes 6: 1x1, before 3x3, 3x3, before 5x5, 5x5, pool"
        )
    ones, before_threes, threes, before_fives, fives, pooled = branches
    if ones + threes + fives + pooled != width:
        total = ones + threes + fives + pooled
        raise ValueError(f"the branches leave {total} channels ({ones} + {threes} + {fives} + {pooled}), not {width}")

    def reduced(before: int, after: int, kernel: int) -> Sequence:
        first = conv_norm_act(style, before, kernel=1, mark="1")
        return Sequence(parts=(*first, *conv_norm_act(style, after, kernel=kernel, stride=stride, mark="2")))

    pool = ("pool", Pool(kind="max", stride=stride, kernel=3))
    return Concat(
        parts=(
            ("ones", Sequence(parts=conv_norm_act(style, ones, kernel=1, stride=stride))),
            ("threes", reduced(before_threes, threes, 3)),
            ("fives", reduced(before_fives, fives, wide)),
            ("pooled", Sequence(parts=(pool, *conv_norm_act(style, pooled, kernel=1)))),
        )
    )


def dense(
    place: Place, *, growth: Width = 32, expansion: Annotated[int, Field(ge=0, le=16)] = 4, dropout: Rate = 0.0
) -> Node:
    """New features beside all that came before (Huang et al. 2017, "DenseNet-BC"); it leaves `growth` channels more.

    Args:
        place: where the block stands; its width is not looked at.
        growth: new channels.
        expansion: channels between its 1x1 and 3x3 convolution, in `growth`s; 0 has the 3x3 alone.
        dropout: rate after the last convolution.
    """
    style = place.style
    narrow = norm_act_conv(style, expansion * growth, kernel=1, mark="1") if expansion else ()
    new = (*narrow, *norm_act_conv(style, growth, mark="2"), *units.dropout(dropout))
    return Concat(parts=(("old", Sequence(parts=())), ("new", Sequence(parts=new))))


def separable(place: Place, *, kernel: Kernel = 3, dilation: Stride = 1, dropout: Rate = 0.0) -> Node:
    """A convolution of each channel by itself, then a 1x1 over channels, each with norm and activation.

    Args:
        place: where the block stands.
        kernel, dilation: of the depthwise convolution, which has the stride.
        dropout: rate at the end.

    Source: Howard et al. 2017, "MobileNets", figure 3.
    """
    style = place.style
    depthwise = conv_norm_act(
        style,
        place.in_channels,
        kernel=kernel,
        stride=place.stride,
        dilation=dilation,
        groups=place.in_channels,
        mark="1",
    )
    pointwise = conv_norm_act(style, place.width, kernel=1, mark="2")
    return Sequence(parts=(*depthwise, *pointwise, *units.dropout(dropout)))


def mbconv(
    place: Place,
    *,
    kernel: Kernel = 3,
    expansion: Expansion = 6.0,
    squeeze: Annotated[float, Field(ge=0, le=1)] = 0.0,
    dilation: Stride = 1,
) -> Node:
    """1x1 to more channels, depthwise, 1x1 back without activation (Sandler et al. 2018, figure 3; Tan & Le 2019).

    It is added to what came where the shape stays. Expansion 1 has no first convolution.

    Args:
        place: where the block stands.
        kernel, dilation: of the depthwise convolution, which has the stride.
        expansion: inner channels for each that comes.
        squeeze: inner channels of squeeze-excite, as a share of those that come; 0 has none.
    """
    style, inner = place.style, max(1, round(place.in_channels * expansion))
    widened = conv_norm_act(style, inner, kernel=1, mark="1") if expansion != 1 else ()
    depthwise = conv_norm_act(
        style, inner, kernel=kernel, stride=place.stride, dilation=dilation, groups=inner, mark="2"
    )
    return _inverted(place, (*widened, *depthwise, *_squeezed(place, squeeze)))


def fused_mbconv(
    place: Place,
    *,
    kernel: Kernel = 3,
    expansion: Expansion = 4.0,
    squeeze: Annotated[float, Field(ge=0, le=1)] = 0.0,
) -> Node:
    """MBConv whose first two convolutions are one full one (Tan & Le 2021, figure 2).

    Args:
        place: where the block stands.
        kernel: of the first convolution, which has the stride.
        expansion: inner channels for each that comes; 1 leaves that convolution alone.
        squeeze: as in `mbconv`.
    """
    style, inner = place.style, max(1, round(place.in_channels * expansion))
    if expansion == 1:
        parts = conv_norm_act(style, place.width, kernel=kernel, stride=place.stride, mark="1")
        parts = (*parts, *_squeezed(place, squeeze))
        return Sequence(parts=parts) if place.changes_shape else added(place, parts)
    widened = conv_norm_act(style, inner, kernel=kernel, stride=place.stride, mark="1")
    return _inverted(place, (*widened, *_squeezed(place, squeeze)))


def _squeezed(place: Place, share: float) -> Parts:
    if not share:
        return ()
    activation = place.style.activation
    inner = max(1, int(place.in_channels * share))
    return (("attention", SqueezeExcite(width=inner, activation="relu" if activation == "none" else activation)),)


def _inverted(place: Place, parts: Parts) -> Node:
    """The narrow end of an inverted bottleneck, and its sum where there is one."""
    sums = not place.changes_shape
    last = conv_norm_act(
        place.style, place.width, kernel=1, active=False, zero=sums and place.style.zero_gamma, mark="3"
    )
    return added(place, (*parts, *last)) if sums else Sequence(parts=(*parts, *last))


def convnext(
    place: Place, *, kernel: Kernel = 7, expansion: Expansion = 4.0, scale: Annotated[float, Field(ge=0, le=1)] = 1e-6
) -> Node:
    """Depthwise 7x7, norm, 1x1 to more channels, activation, 1x1 back, scaled (Liu et al. 2022, figure 4).

    All convolutions have a bias. Where the shape changes, a norm and patches of the stride come first (section 2.2,
    "separate downsampling layers").

    Args:
        place: where the block stands.
        kernel: of the depthwise convolution.
        expansion: inner channels for each that the block leaves.
        scale: what the learnt factor of each channel starts at; 0 has no such factor.
    """
    style, width = place.style, place.width
    body = (
        ("conv1", units.conv(style, width, kernel=kernel, groups=width, bias=True)),
        *units.norm(style),
        ("conv2", units.conv(style, max(1, round(width * expansion)), kernel=1, bias=True)),
        *units.activation(style),
        ("conv3", units.conv(style, width, kernel=1, bias=True)),
        *((("scale", LayerScale(initial=scale)),) if scale else ()),
    )
    if not place.changes_shape:
        return added(place, body)
    before = (*units.norm(style), *units.patches(style, width, place.stride))
    return Sequence(parts=(*before, ("sum", added(place, body))))


def non_local(place: Place, *, ratio: Share = 0.5, likeness: Literal["softmax", "dot"] = "softmax") -> Node:
    """All positions weighted by likeness, added to what came (Wang et al. 2018, figure 2; embedded Gaussian or dot).

    Args:
        place: where the block stands; cost grows with the square of the positions.
        ratio: channels in which positions are compared and averaged, as a share of those that come.
        likeness: normalised by softmax, or divided by the number of positions.
    """
    inner = max(1, round(place.in_channels * ratio))
    return _filtered(place, NonLocal(width=inner, value=inner, softmax=likeness == "softmax"))


def denoise(place: Place, *, filter: Literal["softmax", "dot", "mean", "median"] = "softmax") -> Node:
    """A filter that smooths features, a 1x1 convolution, added to what came (Xie et al. 2019, figure 4).

    Args:
        place: where the block stands.
        filter: non-local means by softmax in half the channels or by the dot product, the mean or the median of 3x3.
    """
    match filter:
        case "softmax":
            node: Node = NonLocal(width=max(1, place.in_channels // 2))
        case "dot":
            node = NonLocal(softmax=False)
        case "mean":
            node = Pool(kind="average", stride=1, kernel=3)
        case "median":
            node = Median()
    return _filtered(place, node)


def _filtered(place: Place, node: Node) -> Residual:
    """The filter, a 1x1 convolution and a norm that starts at 0, so that the block starts as nothing."""
    last = conv_norm_act(place.style, place.in_channels, kernel=1, active=False, zero=True)
    return added(place, (("filter", node), *last))


def pool(place: Place, *, kind: Literal["max", "average", "stochastic"] = "max", kernel: Kernel | None = None) -> Node:
    """Pooling by itself, which divides the sides by the stage's stride, anywhere in a network.

    Args:
        place: where the block stands.
        kind: maximum, mean, or a value drawn in proportion to its size while training.
        kernel: side of a window; that of the stride where it is left out.
    """
    if place.stride == 1 and kernel is None:
        raise ValueError("at stride 1 and without a kernel it pools nothing: set the stage's stride")
    return Pool(kind=kind, stride=place.stride, kernel=kernel)


def norm_act(place: Place) -> Node:
    """Norm and activation by themselves, such as after the last block of a pre-activation network."""
    return Sequence(parts=(*units.norm(place.style), *units.activation(place.style)))


BLOCKS = Registry(
    "block",
    [
        Entry("plain", plain, "convolution, norm, activation", "Simonyan & Zisserman 2015; Ioffe & Szegedy 2015"),
        Entry("residual", residual, "two convolutions beside a shortcut", "He et al. 2016, section 4.1"),
        Entry("bottleneck", bottleneck, "1x1, 3x3, 1x1 beside a shortcut", "He et al. 2016, figure 5; Xie et al. 2017"),
        Entry("preactivation", preactivation, "residual, norm and activation first", "He et al. 2016, figure 4e"),
        Entry("inception", inception, "1x1, 3x3, 5x5 and pooling side by side", "Szegedy et al. 2015, figure 2b"),
        Entry(
            "dense", dense, "new channels beside all earlier ones", "Huang et al. 2017", tags=("grows", "unstrided")
        ),
        Entry("separable", separable, "depthwise, then 1x1", "Howard et al. 2017, figure 3"),
        Entry("mbconv", mbconv, "1x1 up, depthwise, 1x1 down", "Sandler et al. 2018; Tan & Le 2019"),
        Entry("fused-mbconv", fused_mbconv, "3x3 up, 1x1 down", "Tan & Le 2021, figure 2"),
        Entry("convnext", convnext, "depthwise 7x7, then two 1x1", "Liu et al. 2022, figure 4"),
        Entry(
            "non-local", non_local, "each position sees all", "Wang et al. 2018", tags=("keeps", "unstrided")
        ),
        Entry("denoise", denoise, "features smoothed", "Xie et al. 2019, figure 4", tags=("keeps", "unstrided")),
        Entry("pool", pool, "pooling alone", tags=("keeps",)),
        Entry("norm-act", norm_act, "norm and activation alone", tags=("keeps", "unstrided")),
    ],
)  # fmt: skip
