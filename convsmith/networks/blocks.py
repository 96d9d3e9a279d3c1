"""What blocks need beyond plain layers: ways of joining branches, and the nodes of a design that only blocks use.

`NODES` has one row per kind of node, as `LAYERS` has for plain layers: a function of `(node, in_channels)` that returns
the module and the channels that it leaves.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convsmith import design
from convsmith.errors import UsageError
from convsmith.registry import Entry, Registry

Built = tuple[nn.Module, int]


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


class Concat(nn.Module):
    """Branches side by side on the same input, their channels joined (Szegedy et al. 2015; Huang et al. 2017).

    Args:
        branches: modules by name, whose results differ at most in their channels.
    """

    def __init__(self, branches: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.children()], dim=1)


class LayerScale(nn.Module):
    """A learnt factor for each channel (Touvron et al. 2021, "Going deeper with image transformers", equation 8).

    `[N, C, H, W]` stays so; the factors are `[C]`, of one dimension as what weight decay leaves alone.

    Args:
        channels: C.
        initial: what the factors start at; small, so that a deep network starts near the identity.
    """

    def __init__(self, channels: int, initial: float = 1e-6) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), initial))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale[:, None, None]


class PadChannels(nn.Module):
    """Channels of zeros behind those that come: `[N, C, H, W]` becomes `[N, width, H, W]` (He et al. 2016, A)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, 0, 0, 0, self.width - x.shape[1]))

    def extra_repr(self) -> str:
        return f"width={self.width}"


class PadSides(nn.Module):
    """Zeros to the right and below, up to a multiple of `multiple`; sides that are one already stay as they are."""

    def __init__(self, multiple: int) -> None:
        super().__init__()
        self.multiple = multiple

    def forward(self, x: Tensor) -> Tensor:
        below, right = -x.shape[2] % self.multiple, -x.shape[3] % self.multiple
        return F.pad(x, (0, right, 0, below)) if below or right else x

    def extra_repr(self) -> str:
        return f"multiple={self.multiple}"


class Median(nn.Module):
    """The median of each window of `kernel` x `kernel`, the border repeated, so that the sides stay."""

    def __init__(self, kernel: int = 3) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, x: Tensor) -> Tensor:
        border = self.kernel // 2
        padded = F.pad(x, (border, border, border, border), mode="replicate")
        windows = padded.unfold(2, self.kernel, 1).unfold(3, self.kernel, 1)
        return windows.flatten(4).median(dim=-1).values

    def extra_repr(self) -> str:
        return f"kernel={self.kernel}"


class NonLocal(nn.Module):
    """Each position as a mean of all, weighted by how alike they are (Wang et al. 2018, equations 1 to 4).

    `[N, C, H, W]` becomes `[N, value or C, H, W]`. With softmax, products are divided by the root of the compared
    channels, as in the authors' code and unlike the paper's equation 3. Without it, products are divided by the number
    of positions P, and are never laid out for all pairs: `a (bᵀ v)` costs P C², where `(a bᵀ) v` would cost P² C.

    Args:
        channels: C.
        width: channels of both sides of the comparison, after 1x1 convolutions; None compares features as they are.
        value: channels of what is averaged, after a 1x1 convolution; None averages features as they are.
        softmax: whether weights are a softmax, which is the Gaussian of the paper, or the products themselves.
    """

    def __init__(self, channels: int, width: int | None = None, value: int | None = None, softmax: bool = True) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, width, 1) if width else nn.Identity()
        self.key = nn.Conv2d(channels, width, 1) if width else nn.Identity()
        self.value = nn.Conv2d(channels, value, 1) if value else nn.Identity()
        self.softmax = softmax
        for layer in (self.query, self.key, self.value):
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.normal_(layer.weight, std=0.01)  # as Wang et al. 2018, section 4.1
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (layer(x).flatten(2).transpose(1, 2) for layer in (self.query, self.key, self.value))
        if self.softmax:
            mean = F.scaled_dot_product_attention(query, key, value)
        else:
            mean = query @ (key.transpose(1, 2) @ value / key.shape[1])
        return mean.transpose(1, 2).unflatten(2, x.shape[2:])


def layer_scale(node: design.LayerScale, in_channels: int) -> Built:
    return LayerScale(in_channels, node.initial), in_channels


def class_maps(node: design.ClassMaps, in_channels: int) -> Built:
    module = nn.Conv2d(in_channels, node.width, 1)
    # As the last linear layer of other heads: the first loss is near ln K.
    nn.init.normal_(module.weight, std=0.01)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return module, node.width


def non_local(node: design.NonLocal, in_channels: int) -> Built:
    return NonLocal(in_channels, node.width, node.value, node.softmax), node.value or in_channels


def median(node: design.Median, in_channels: int) -> Built:
    return Median(node.kernel), in_channels


def pad_channels(node: design.PadChannels, in_channels: int) -> Built:
    if node.width < in_channels:
        raise UsageError(
            f"Zeros cannot make {node.width} channels of {in_channels}.", mend="Use a 1x1 convolution as the shortcut."
        )
    return PadChannels(node.width), node.width


def pad_sides(node: design.PadSides, in_channels: int) -> Built:
    return PadSides(node.multiple), in_channels


NODES = Registry(
    "node",
    [
        Entry("layer-scale", layer_scale, "a learnt factor for each channel", "Touvron et al. 2021"),
        Entry("class-maps", class_maps, "a score of each class at each position", "Lin et al. 2014"),
        Entry("non-local", non_local, "each position as a mean of all", "Wang et al. 2018; Xie et al. 2019"),
        Entry("median", median, "the median of each window"),
        Entry("pad-channels", pad_channels, "channels of zeros behind the others", "He et al. 2016, option A"),
        Entry("pad-sides", pad_sides, "zeros up to whole patches"),
    ],
)
