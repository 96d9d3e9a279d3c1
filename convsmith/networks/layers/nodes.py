"""What each leaf of a design's tree is in PyTorch: one row of `LAYERS` per kind of node.

A row's function takes `(node, in_channels)` and returns the module and the channels that it leaves.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from convsmith import design
from convsmith.errors import UsageError
from convsmith.networks.initialisation import INITIALISATIONS
from convsmith.networks.layers.table import LAYER_KINDS
from convsmith.registry import Entry, Registry

Built = tuple[nn.Module, int]


def conv(node: design.Conv, in_channels: int) -> Built:
    _divided(node.groups, in_channels, node.width)
    module = nn.Conv2d(
        in_channels,
        node.width,
        node.kernel,
        node.stride,
        node.dilation * (node.kernel // 2) if node.padding is None else node.padding,
        node.dilation,
        node.groups,
        bias=node.bias,
        padding_mode=node.padding_mode,
    )
    return _started(module), node.width


def transposed_conv(node: design.TransposedConv, in_channels: int) -> Built:
    _divided(node.groups, in_channels, node.width)
    module = nn.ConvTranspose2d(
        in_channels, node.width, node.kernel, node.stride, node.padding, groups=node.groups, bias=node.bias
    )
    return _started(module), node.width


def norm(node: design.Norm, in_channels: int) -> Built:
    match node.kind:
        case "group":
            # At least 16 channels in each group (Wu & He 2018, table 3), so that a group of one position still varies.
            most = max(1, in_channels // 16)
            groups = next(groups for groups in range(most, 0, -1) if in_channels % groups == 0)
            module = LAYER_KINDS.build("group-norm", groups, in_channels)
        case "instance":
            module = LAYER_KINDS.build("instance-norm", in_channels, affine=True)
        case _:
            module = LAYER_KINDS.build(f"{node.kind}-norm", in_channels)
    nn.init.constant_(module.weight, 0.0 if node.zero else 1.0)
    return module, in_channels


def activation(node: design.Activation, in_channels: int) -> Built:
    # Not in place: the input of a block may be read again by its shortcut.
    return LAYER_KINDS.build(node.kind), in_channels


def pool(node: design.Pool, in_channels: int) -> Built:
    if node.kind == "stochastic":
        return LAYER_KINDS.build("stochastic-pool", node.stride, ceil_mode=True), in_channels
    kernel = node.kernel or node.stride
    # Windows that touch hang over the end; those that overlap are padded, so that both divide sides rounded up.
    padding = (0 if node.kernel is None else kernel // 2) if node.padding is None else node.padding
    if node.kind == "max":
        return nn.MaxPool2d(kernel, node.stride, padding, ceil_mode=node.kernel is None), in_channels
    mean = nn.AvgPool2d(kernel, node.stride, padding, ceil_mode=node.kernel is None, count_include_pad=False)
    return mean, in_channels


def fractional_pool(node: design.FractionalPool, in_channels: int) -> Built:
    return LAYER_KINDS.build("fractional-max-pool", node.kernel, output_ratio=node.share), in_channels


def blur_pool(node: design.BlurPool, in_channels: int) -> Built:
    module = LAYER_KINDS.build("blur-pool", in_channels, node.kernel, node.stride)
    # As in the paper's code, so that sides are divided and rounded up; timm pads more where the stride is above 2.
    module.padding = [node.kernel // 2] * 4
    return module, in_channels


def grid_pool(node: design.GridPool, in_channels: int) -> Built:
    return LAYER_KINDS.build(f"adaptive-{node.kind}-pool", node.side), in_channels


def flatten(node: design.Flatten, in_channels: int) -> Built:
    return nn.Flatten(), in_channels * node.side**2


def linear(node: design.Linear, in_channels: int) -> Built:
    module = nn.Linear(in_channels, node.width, bias=node.bias)
    # Small enough that all classes start about equally likely, so that the first loss is ln K, yet not zero, so that
    # gradients reach the layers below from the first step on (Goyal et al. 2017, section 5.1). A layer before it that
    # started so small would pass on hardly anything of the image.
    return _started(module, "kaiming-normal-fan-in" if node.hidden else "normal-0.01"), node.width


def dropout(node: design.Dropout, in_channels: int) -> Built:
    return LAYER_KINDS.build("spatial-dropout" if node.spatial else "dropout", node.rate), in_channels


def drop_block(node: design.DropBlock, in_channels: int) -> Built:
    return LAYER_KINDS.build("drop-block", node.rate, node.size), in_channels


def stochastic_depth(node: design.StochasticDepth, in_channels: int) -> Built:
    return LAYER_KINDS.build("stochastic-depth", node.rate, "row"), in_channels


def squeeze_excite(node: design.SqueezeExcite, in_channels: int) -> Built:
    module = LAYER_KINDS.build(
        "squeeze-excite",
        in_channels,
        node.width or max(1, int(in_channels * node.rate + 0.5)),
        activation=LAYER_KINDS[node.activation].load(),
        scale_activation=LAYER_KINDS[node.gate].load(),
    )
    return module, in_channels


def cbam(node: design.Cbam, in_channels: int) -> Built:
    return LAYER_KINDS.build("cbam", in_channels, node.rate, spatial_kernel_size=node.kernel), in_channels


def eca(node: design.Eca, in_channels: int) -> Built:
    if node.kernel is None:
        return LAYER_KINDS.build("eca", in_channels), in_channels
    return LAYER_KINDS.build("eca", kernel_size=node.kernel), in_channels


def _divided(groups: int, in_channels: int, width: int) -> None:
    for name, channels in (("in", in_channels), ("out", width)):
        if channels % groups:
            raise UsageError(
                f"A convolution in {groups} groups cannot have {channels} channels {name}.",
                mend=f"Use a number of groups that divides {math.gcd(in_channels, width)}.",
            )


def _started(module: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, rule: str = "kaiming-normal-fan-out") -> nn.Module:
    """Fan-out keeps the gradient's variance through depth; the gain is ReLU's (He et al. 2015, section 2.2)."""
    with torch.no_grad():
        INITIALISATIONS.build(rule, module.weight, module, math.sqrt(2.0))
        if module.bias is not None:
            module.bias.zero_()
    return module


LAYERS = Registry(
    "layer",
    [
        Entry("conv", conv, "convolution"),
        Entry("transposed-conv", transposed_conv, "convolution backwards, which enlarges"),
        Entry("norm", norm, "normalisation by batch, groups of channels, positions or images", "Ioffe & Szegedy 2015"),
        Entry("activation", activation, "non-linearity"),
        Entry("pool", pool, "maximum, mean or a drawn value of windows"),
        Entry("fractional-pool", fractional_pool, "maximum of windows whose places are drawn", "Graham 2014"),
        Entry("blur-pool", blur_pool, "low-pass filter before the stride", "Zhang 2019"),
        Entry("grid-pool", grid_pool, "maximum or mean of the cells of a grid"),
        Entry("flatten", flatten, "positions and channels as one vector"),
        Entry("linear", linear, "fully connected"),
        Entry("dropout", dropout, "values or channels set to zero at random while training", "Srivastava et al. 2014"),
        Entry("drop-block", drop_block, "squares of a channel set to zero while training", "Ghiasi et al. 2018"),
        Entry("stochastic-depth", stochastic_depth, "a branch left out while training", "Huang et al. 2016"),
        Entry("squeeze-excite", squeeze_excite, "channels weighed by their means", "Hu et al. 2018"),
        Entry("cbam", cbam, "channels, then positions, weighed", "Woo et al. 2018"),
        Entry("eca", eca, "channels weighed by a convolution along their means", "Wang et al. 2020"),
    ],
)
