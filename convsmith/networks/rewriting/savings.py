"""Rewrites of any network that cut parameters, multiply-adds or memory, each measured on the network rebuilt.

In a copy of the network, layers get another form. Their weights are the nearest that the form allows, so that what was
learnt is not all lost; yet the network answers otherwise, and is to be trained on.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor, nn

from convsmith.errors import UsageError
from convsmith.networks.counting.analysis import count_parameters
from convsmith.networks.counting.costs import Difference, costs
from convsmith.networks.recording.graph import Graph, Ref, record
from convsmith.networks.recording.untouched import computed, duplicate
from convsmith.networks.rewriting.narrowing import narrow
from convsmith.registry import Entry, Registry

NARROW = Entry("narrow", narrow, "fewer channels everywhere", "Howard et al. 2017; Li et al. 2017")
FACTOR = 0.5
"""Share of the channels that stay in the advice to have fewer."""
RATIO = 0.25
GROUPS = 4
SMALL = 3


@dataclass(frozen=True)
class Advice:
    """A rewrite of a network, and what it did.

    Args:
        rewrite: its name in `REWRITES`, or `narrow`.
        summary, source: of it.
        layers: paths of those that have another form; empty where that is the whole network.
        difference: measured on both.
    """

    rewrite: str
    summary: str
    source: str
    layers: tuple[str, ...]
    difference: Difference


def advise(model: nn.Module, shape: Sequence[int]) -> tuple[Advice, ...]:
    """The rewrites that cut something of a network, each on all layers where it saves, those that save most first.

    Args:
        model: of any library, with or without values; left as it was.
        shape: of one image, `(channels, height, width)`.
    """
    before, found = costs(model, shape), []
    for name, entry in (("narrow", NARROW), *REWRITES.items()):
        layers = () if name == "narrow" else tuple(candidates(model, shape, name))
        if name != "narrow" and not layers:
            continue
        try:
            changed = narrow(model, shape, FACTOR) if name == "narrow" else rewrite(model, shape, name)
        except UsageError:
            continue  # its own code needs the layers as they are: there is nothing to advise
        difference = Difference(before, costs(changed, shape))
        found.append(Advice(name, entry.summary, entry.source, layers, difference))
    return tuple(sorted(found, key=lambda advice: advice.difference.parameters))


def rewrite(
    model: nn.Module, shape: Sequence[int], name: str, *, layers: int | Sequence[str] | None = None
) -> nn.Module:
    """A copy of a network in which layers have another form.

    Args:
        model: left as it was.
        shape: of one image, `(channels, height, width)`.
        name: of a row of `REWRITES`.
        layers: paths; or how many, those that save most parameters first; None is all that save some.

    Raises:
        UsageError: no such rewrite or layer, the network's own code needs a layer as it was, or it cannot be copied.
    """
    able = candidates(model, shape, name)
    paths = list(able)[:layers] if layers is None or isinstance(layers, int) else list(layers)
    wrong = next((path for path in paths if path not in able), None)
    if wrong or not paths:
        told = f"{wrong!r} is no layer for which" if wrong else "There is no layer for which"
        known = f"Such are {', '.join(list(able)[:5])}." if able else ""
        raise UsageError(f"{told} {name!r} saves parameters.", mend=known)
    changed, form, positions = duplicate(model), REWRITES[name].load(), _positions(record(model, shape))
    for path in paths:
        old = changed.get_submodule(path)
        new = form(old, positions.get(path, 1))
        changed.set_submodule(path, new.train(old.training), strict=True)
    try:
        record(changed, shape)
    except UsageError as error:
        raise UsageError(f"{type(model).__name__} needs layers to be as they are: {error.message}") from None
    return changed


def candidates(model: nn.Module, shape: Sequence[int], name: str) -> dict[str, int]:
    """The layers for which a rewrite saves parameters, and how many, most first; never what reads the image itself.

    Args:
        model, shape: as in `rewrite`.
        name: of a row of `REWRITES`.
    """
    form, graph = REWRITES[name].load(), record(model, shape)
    first = {operation.module for operation in graph.operations if set(operation.inputs) & set(graph.inputs)}
    positions = _positions(graph)
    found = {}
    for path, layer in model.named_modules():
        if type(layer) not in (nn.Conv2d, nn.Linear) or path in first or computed(layer):
            continue
        new = form(copy.deepcopy(layer).to("meta"), positions.get(path, 1))
        saved = 0 if new is None else count_parameters(layer).total - count_parameters(new).total
        if saved > 0:
            found[path] = saved
    return dict(sorted(found.items(), key=lambda row: -row[1]))


# ---------------------------------------------------------------------------------------------------------------- forms


def separable(layer: nn.Module, positions: int = 1) -> nn.Module | None:
    """A convolution of each channel by itself, then 1x1 over channels (Howard et al. 2017, section 3.1).

    For each channel that comes, the kernels over all outputs become one kernel and a factor for each output: the first
    singular vectors of its weights.
    """
    if not _full(layer):
        return None
    spatial = _conv(layer, layer.in_channels, layer.in_channels, groups=layer.in_channels)
    mixing = _pointwise(layer, layer.in_channels, layer.out_channels)
    if not layer.weight.is_meta:
        kernels, factors = _halves(layer.weight.detach().transpose(0, 1).flatten(2), 1)
        _fill(spatial, kernels.reshape(spatial.weight.shape))
        _fill(mixing, factors[:, :, 0].T[:, :, None, None], layer.bias)
    return nn.Sequential(spatial, mixing)


def bottleneck(layer: nn.Module, positions: int = 1) -> nn.Module | None:
    """1x1 to a quarter of the channels, then the convolution on those (Szegedy et al. 2015, section 4).

    Its weights are those of the nearest convolution that looks at so few mixtures of channels (Zhang et al. 2016,
    "Accelerating very deep convolutional networks", section 3).
    """
    if not _full(layer):
        return None
    inner = max(1, round(layer.in_channels * RATIO))
    mixing, wide = _pointwise(layer, layer.in_channels, inner), _conv(layer, inner, layer.out_channels)
    if not layer.weight.is_meta:
        high, across = layer.kernel_size
        kernels, mixtures = _halves(layer.weight.detach().transpose(0, 1).flatten(1)[None], inner)
        _fill(mixing, mixtures[0].T[:, :, None, None])
        _fill(wide, kernels[0].reshape(layer.out_channels, high, across, inner).permute(0, 3, 1, 2), layer.bias)
    return nn.Sequential(mixing, wide)


def grouped(layer: nn.Module, positions: int = 1) -> nn.Module | None:
    """The channels in groups that do not see each other (Krizhevsky et al. 2012; Xie et al. 2017); weights within."""
    groups = math.gcd(GROUPS, layer.in_channels, layer.out_channels) if _full(layer) else 1
    if not _full(layer) or groups == 1:
        return None
    new = _conv(layer, layer.in_channels, layer.out_channels, groups=groups)
    if not layer.weight.is_meta:
        rows = layer.weight.detach().chunk(groups)
        _fill(new, torch.cat([row.chunk(groups, 1)[place] for place, row in enumerate(rows)]), layer.bias)
    return new


def smaller_kernel(layer: nn.Module, positions: int = 1) -> nn.Module | None:
    """3x3 where the kernel was larger: the middle of the weights (Simonyan & Zisserman 2015, section 2.3)."""
    if not isinstance(layer, nn.Conv2d) or isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        return None
    high, across = layer.kernel_size
    border = (high - SMALL) // 2
    padding = layer.padding[0] - border * layer.dilation[0], layer.padding[1] - border * layer.dilation[1]
    if high != across or high <= SMALL or high % 2 == 0 or min(padding) < 0 or max(layer.stride) > SMALL:
        return None
    new = _conv(layer, layer.in_channels, layer.out_channels, groups=layer.groups, kernel=SMALL, padding=padding)
    if not layer.weight.is_meta:
        _fill(new, layer.weight.detach()[:, :, border:-border, border:-border], layer.bias)
    return new


class PooledLinear(nn.Module):
    """A linear layer on the means of channels, where one read every position of flattened maps (Lin et al. 2014).

    `[N, C * positions]`, flattened from `[N, C, H, W]`, becomes `[N, out_features]`.

    Args:
        linear: of C features.
        positions: H * W.
    """

    def __init__(self, linear: nn.Linear, positions: int) -> None:
        super().__init__()
        self.positions = positions
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.unflatten(-1, (-1, self.positions)).mean(-1))

    def extra_repr(self) -> str:
        return f"positions={self.positions}"


def pool_before(layer: nn.Module, positions: int = 1) -> nn.Module | None:
    """Global average pooling before a linear layer that reads all positions; weights are summed over these."""
    if not isinstance(layer, nn.Linear) or positions == 1:
        return None
    channels = layer.in_features // positions
    like = layer.weight
    linear = nn.Linear(channels, layer.out_features, layer.bias is not None, device=like.device, dtype=like.dtype)
    if not layer.weight.is_meta:
        _fill(linear, layer.weight.detach().unflatten(1, (channels, positions)).sum(2), layer.bias)
    return PooledLinear(linear, positions)


REWRITES = Registry(
    "rewrite",
    [
        Entry("separable", separable, "depthwise, then 1x1, in place of full convolutions", "Howard et al. 2017"),
        Entry("bottleneck", bottleneck, "1x1 to a quarter of the channels first", "Szegedy et al. 2015"),
        Entry("grouped", grouped, f"convolutions in {GROUPS} groups", "Xie et al. 2017"),
        Entry("smaller-kernel", smaller_kernel, "3x3 in place of larger kernels", "Simonyan & Zisserman 2015"),
        Entry("pool-before-linear", pool_before, "global average pooling before linear layers", "Lin et al. 2014"),
    ],
)  # fmt: skip
"""Other forms of layers: functions from a layer, and the positions that it reads flattened, to a new one or None."""


def _full(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether it is a convolution that looks around and over all channels."""
    wide = isinstance(layer, nn.Conv2d) and layer.groups == 1 and max(layer.kernel_size) > 1
    return wide and layer.padding_mode == "zeros"


def _conv(
    like: nn.Conv2d,
    inward: int,
    outward: int,
    *,
    groups: int = 1,
    kernel: int | None = None,
    padding: tuple[int, int] | None = None,
) -> nn.Conv2d:
    """A convolution that moves as another does."""
    high, across = like.kernel_size if kernel is None else (kernel, kernel)
    border = padding or (like.padding if isinstance(like.padding, str) else (like.padding[0], like.padding[1]))
    (down, right), (apart, aside) = like.stride, like.dilation
    return nn.Conv2d(
        inward, outward, (high, across), (down, right), border, (apart, aside), groups, bias=like.bias is not None,
        device=like.weight.device, dtype=like.weight.dtype,
    )  # fmt: skip


def _pointwise(like: nn.Conv2d, inward: int, outward: int) -> nn.Conv2d:
    weight = like.weight
    return nn.Conv2d(inward, outward, 1, bias=like.bias is not None, device=weight.device, dtype=weight.dtype)


def _halves(matrices: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The nearest products of a rank: `[B, m, n]` is about `second @ first.T`, and both have the root of its size."""
    left, sizes, right = torch.linalg.svd(matrices, full_matrices=False)
    roots = sizes[:, None, :rank].sqrt()
    return right[:, :rank].transpose(1, 2) * roots, left[:, :, :rank] * roots


def _fill(layer: nn.Module, weight: Tensor, bias: Tensor | None = None) -> None:
    with torch.no_grad():
        layer.get_parameter("weight").copy_(weight)
        own = layer.bias
        if isinstance(own, Tensor):
            own.copy_(torch.zeros_like(own) if bias is None else bias)


def _positions(graph: Graph) -> Mapping[str, int]:
    """For linear layers that read flattened maps, by path: how many positions of each channel."""
    producer, found = graph.producer(), {}
    for operation in graph.operations:
        read = operation.arguments.get("mat1", operation.arguments.get("self"))
        if operation.name not in ("addmm", "mm") or not isinstance(read, Ref):
            continue
        value = graph.values[read.index]
        while value.index in producer and len(value.shape) == 2:
            maker = graph.operations[producer[value.index]]
            if len(maker.inputs) != 1:  # what works on each value by itself, or gives it another shape, reads only one
                break
            value = graph.values[maker.inputs[0]]
        flat = len(value.shape) == 4 and value.kind == "result" and value.shape[0] == graph.values[read.index].shape[0]
        if flat and value.elements == graph.values[read.index].elements and math.prod(value.shape[2:]) > 1:
            found[operation.module] = math.prod(value.shape[2:])
    return found
