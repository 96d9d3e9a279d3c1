"""What each leaf of a design's tree is in PyTorch: one row of `LAYERS` per kind of node.

A row's function takes `(node, in_channels)` and returns the module and the channels that it leaves.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from convsmith import design
from convsmith.errors import UsageError
from convsmith.registry import Entry, Registry

Built = tuple[nn.Module, int]

ACTIVATIONS = {
    "relu": nn.ReLU,
    "leaky-relu": nn.LeakyReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
}


class Residual(nn.Module):
    """`after(body(x) + shortcut(x))` (He et al. 2016, equations 1 and 2).

    Args:
        body, shortcut: modules whose results have equal shapes.
        after: what follows the sum.
    """

    def __init__(self, body: nn.Module, shortcut: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.body(x) + self.shortcut(x))


def conv(node: design.Conv, in_channels: int) -> Built:
    for name, channels in (("in", in_channels), ("out", node.width)):
        if channels % node.groups:
            raise UsageError(
                f"A convolution in {node.groups} groups cannot have {channels} channels {name}.",
                mend=f"Use a number of groups that divides {math.gcd(in_channels, node.width)}.",
            )
    padding = node.dilation * (node.kernel // 2) if node.padding is None else node.padding
    module = nn.Conv2d(
        in_channels, node.width, node.kernel, node.stride, padding, node.dilation, node.groups, bias=node.bias
    )
    # Fan-out keeps the gradient's variance through depth; the gain is ReLU's (He et al. 2015, section 2.2).
    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return module, node.width


def norm(node: design.Norm, in_channels: int) -> Built:
    if node.kind == "batch":
        module = nn.BatchNorm2d(in_channels)
    else:
        # At least 16 channels in each group (Wu & He 2018, table 3), so that a group of one position still varies.
        most = max(1, in_channels // 16)
        groups = next(groups for groups in range(most, 0, -1) if in_channels % groups == 0)
        module = nn.GroupNorm(groups, in_channels)
    nn.init.constant_(module.weight, 0.0 if node.zero else 1.0)
    return module, in_channels


def activation(node: design.Activation, in_channels: int) -> Built:
    # Not in place: the input of a block may be read again by its shortcut.
    return ACTIVATIONS[node.kind](), in_channels


def pool(node: design.Pool, in_channels: int) -> Built:
    if node.kind == "max":
        return nn.MaxPool2d(node.stride, ceil_mode=True), in_channels
    return nn.AvgPool2d(node.stride, ceil_mode=True), in_channels


def grid_pool(node: design.GridPool, in_channels: int) -> Built:
    kind = nn.AdaptiveMaxPool2d if node.kind == "max" else nn.AdaptiveAvgPool2d
    return kind(node.side), in_channels


def flatten(node: design.Flatten, in_channels: int) -> Built:
    return nn.Flatten(), in_channels * node.side**2


def linear(node: design.Linear, in_channels: int) -> Built:
    module = nn.Linear(in_channels, node.width, bias=node.bias)
    # Small enough that all classes start about equally likely, so that the first loss is ln K, yet not zero, so that
    # gradients reach the layers below from the first step on (Goyal et al. 2017, section 5.1).
    nn.init.normal_(module.weight, std=0.01)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return module, node.width


def dropout(node: design.Dropout, in_channels: int) -> Built:
    return nn.Dropout(node.rate), in_channels


LAYERS = Registry(
    "layer",
    [
        Entry("conv", conv, "convolution"),
        Entry("norm", norm, "normalisation by batch, or in groups of channels", "Ioffe & Szegedy 2015; Wu & He 2018"),
        Entry("activation", activation, "element-wise non-linearity"),
        Entry("pool", pool, "maximum or mean of windows"),
        Entry("grid-pool", grid_pool, "maximum or mean of the cells of a grid"),
        Entry("flatten", flatten, "positions and channels as one vector"),
        Entry("linear", linear, "fully connected"),
        Entry("dropout", dropout, "values set to zero at random while training", "Srivastava et al. 2014"),
    ],
)
