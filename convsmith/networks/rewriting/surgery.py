"""Changes to any network, its weights kept: strides, dilation, input channels, head, size of the images.

Each works on a copy, changes settings of PyTorch's own layers in it, and looks at it anew, so that what was changed is
what is measured. Where a network does the work in its own code rather than by such layers, it is refused.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import mul
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convsmith.errors import UsageError
from convsmith.networks.counting.analysis import Analysis, analyse
from convsmith.networks.counting.costs import Difference, costs_from
from convsmith.networks.head import find_head, replace_head
from convsmith.networks.recording.graph import Ref

How = Literal["sum", "average", "repeat"]
Pair = tuple[int, int]
Sliding = nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d


@dataclass(frozen=True)
class Surgery:
    """A changed copy of a network.

    Args:
        model: the copy, with all weights that fit.
        layers: paths of what was changed.
        difference: measured on both; with another shape of image, each on its own.
    """

    model: nn.Module
    layers: tuple[str, ...]
    difference: Difference


def change_output_stride(model: nn.Module, shape: Sequence[int], stride: int) -> Surgery:
    """Let a network divide its images by `stride` and no more, the kernels behind spread by as much.

    Layers that would divide further have stride 1, and all that come after them are dilated, so that each position that
    there was before gets the value that it got before (the "à trous" algorithm: Yu & Koltun 2016; Chen et al. 2018,
    section 3.1), and others lie between. What pools globally afterwards averages over more of them. Layers that mix all
    positions, such as attention, take part as they are.

    Args:
        model: of convolutions and poolings that are modules of their own.
        shape: of one image, `(channels, height, width)`.
        stride: at its end; a power of two such as 16 or 8.

    Raises:
        UsageError: it divides by no more already, or a layer that divides cannot be changed.
    """
    before = analyse(model, shape)
    now = _divided(model, before)
    if now <= stride:
        raise UsageError(f"The network divides its images by {now} already.", mend="Give a smaller stride.")
    changed, wanted = copy.deepcopy(model), dict[str, tuple[Pair, Pair]]()
    for path, layer, jumps in _sliding(model, before):
        steps = _limited(jumps, _pair(layer.stride), stride)
        if wanted.setdefault(path, steps) != steps:
            raise UsageError(f"{path} is used at two resolutions, and cannot be changed for one of them.")
    now_is = {path: (_pair(layer.stride), (1, 1)) for path, layer, _ in _sliding(model, before)}
    touched = {path: steps for path, steps in wanted.items() if steps != now_is[path]}
    for path, steps in touched.items():
        _respread(changed, path, *steps)
    try:
        after = analyse(changed, shape)
    except UsageError:
        after = None
    if after is None or _divided(changed, after) != stride:
        raise UsageError(
            "A layer that divides the images is no module for convolution or pooling, so its stride cannot be changed.",
            mend="Where its builder has an option for it, as many of timm's: output_stride=16.",
        )
    return Surgery(changed, tuple(touched), Difference(costs_from(before), costs_from(after)))


def dilate_last(model: nn.Module, shape: Sequence[int], factor: int) -> Surgery:
    """Spread the kernels at a network's smallest maps, so that the same weights see further (Yu & Koltun 2016).

    Unlike `change_output_stride`, this changes what the network answers: it is to be trained on.

    Args:
        factor: by how much; above 1.

    Raises:
        UsageError: no convolution there has a kernel to spread.
    """
    if factor < 2:
        raise UsageError(f"factor is {factor}; it must be a whole number above 1.")
    before, changed = analyse(model, shape), copy.deepcopy(model)
    wide = {
        path: jumps
        for path, layer, jumps in _sliding(model, before)
        if isinstance(layer, nn.Conv2d) and max(layer.kernel_size) > 1
    }
    if not wide:
        raise UsageError("The network has no convolution whose kernel could be spread.")
    touched = tuple(path for path, jumps in wide.items() if jumps == max(wide.values()))
    for path in touched:
        _respread(changed, path, _pair(model.get_submodule(path).stride), (factor, factor))
    return _measured(before, changed, shape, touched)


def change_input_channels(model: nn.Module, shape: Sequence[int], channels: int, *, how: How = "sum") -> Surgery:
    """Let a network take images of another number of channels; the first convolution's weights are carried over.

    Args:
        shape: of one image as it takes them now.
        channels: of one image as it is to take them.
        how: `sum` and `average` give each new channel the sum or the mean of the old weights over their channels: with
            `sum`, one grey channel answers what it did as three equal ones. `repeat` takes the old channels in turn,
            and divides each among its repetitions: an image whose channels are repeated so answers as before.

    Raises:
        UsageError: something else than plain convolutions reads the image.
    """
    before, changed = analyse(model, shape), copy.deepcopy(model)
    image = before.graph.inputs[0]
    paths = []
    for operation in before.graph.operations:
        if image not in operation.inputs:
            continue
        weight = operation.arguments.get("weight")
        name = before.graph.values[weight.index].name if isinstance(weight, Ref) else ""
        layer = changed.get_submodule(name.rpartition(".")[0])
        if operation.name != "convolution" or not isinstance(layer, nn.Conv2d) or layer.groups != 1:
            raise UsageError(
                f"The image is read by {operation.name} in {operation.module or 'the network itself'}, and not by a "
                "plain convolution alone.",
                mend="Build it for these channels, where its builder takes them.",
            )
        layer.weight = nn.Parameter(_carried(layer.weight.detach(), channels, how), layer.weight.requires_grad)
        layer.in_channels = channels
        paths.append(name.rpartition(".")[0])
    return _measured(before, changed, (channels, *shape[1:]), tuple(paths))


def change_head(model: nn.Module, shape: Sequence[int], outputs: int) -> Surgery:
    """Let a network give other logits: a new head in the place of its own, drawn from PyTorch's current seed.

    Raises:
        UsageError: no linear layer or 1x1 convolution gives the output.
    """
    before, changed = analyse(model, shape), copy.deepcopy(model)
    head = replace_head(changed, find_head(changed, shape), outputs)
    return _measured(before, changed, shape, (head.path,))


def change_resolution(model: nn.Module, shape: Sequence[int], height: int, width: int) -> Surgery:
    """Let a network take images of another size, and measure it on both.

    Most networks take any size. timm's transformers are told, and their position embeddings resampled.

    Args:
        shape: of one image as it takes them now.
        height, width: of one as it is to take them, in pixels.

    Raises:
        UsageError: it is made for one size, and cannot be told another.
    """
    before, changed = analyse(model, shape), copy.deepcopy(model)
    tell = getattr(changed, "set_input_size", None)
    if callable(tell):
        tell(img_size=(height, width))
    return _measured(before, changed, (shape[0], height, width), ())


def _measured(before: Analysis, changed: nn.Module, shape: Sequence[int], layers: tuple[str, ...]) -> Surgery:
    return Surgery(changed, layers, Difference(costs_from(before), costs_from(analyse(changed, shape))))


def _sliding(model: nn.Module, known: Analysis) -> Iterator[tuple[str, Sliding, Pair]]:
    """Layers that slide a window over a map, and the pixels between the positions of that map, call by call."""
    for call in known.graph.calls:
        layer = model.get_submodule(call.path)
        field = known.fields.of(call.inputs[0]) if isinstance(layer, Sliding) and call.inputs else None
        if isinstance(layer, Sliding) and field is not None:
            jumps = field.height.stride, field.width.stride
            if all(isinstance(jump, int) and jump for jump in jumps):
                yield call.path, layer, _pair(jumps)


def _divided(model: nn.Module, known: Analysis) -> int:
    """What the image is divided by behind the layer that divides it most."""
    return max((max(map(mul, jumps, _pair(layer.stride))) for _, layer, jumps in _sliding(model, known)), default=1)


def _limited(jumps: Pair, strides: Pair, most: int) -> tuple[Pair, Pair]:
    """The strides and the dilation of a layer, by which nothing is divided by more than `most`."""
    kept = [min(jump * stride, most) / min(jump, most) for jump, stride in zip(jumps, strides, strict=True)]
    spread = [max(jump / most, 1) for jump in jumps]
    if any(number != int(number) for number in (*kept, *spread)):
        raise UsageError(f"{most} is no stride between layers of this network.", mend="Give a power of two.")
    return _pair(kept), _pair(spread)


def _respread(model: nn.Module, path: str, strides: Pair, spread: Pair) -> None:
    """Give a layer other strides, and taps `spread` times as far apart, at the places where they were."""
    layer = model.get_submodule(path)
    if isinstance(layer, nn.Conv2d):
        if layer.padding_mode != "zeros":
            raise UsageError(f"{path} pads by {layer.padding_mode!r}, which does not go with spread kernels.")
        layer.stride, layer.dilation = strides, _times(layer.dilation, spread)
        if not isinstance(layer.padding, str):
            layer.padding = _times(layer.padding, spread)
    elif isinstance(layer, (nn.MaxPool2d, nn.AvgPool2d)):
        padding, hanging = _pair(layer.padding), layer.ceil_mode and strides != _pair(layer.stride)
        if hanging and max(padding):
            raise UsageError(f"{path} pads its windows and lets them hang over; its stride cannot be changed.")
        beyond = _times(tuple(stride - 1 for stride in _pair(layer.stride)), spread) if hanging else (0, 0)
        model.set_submodule(path, _pooling(path, layer, strides, spread, beyond), strict=True)


def _pooling(path: str, layer: nn.MaxPool2d | nn.AvgPool2d, strides: Pair, spread: Pair, beyond: Pair) -> nn.Module:
    """The same pooling with other strides; windows that hung over find `beyond` rows and columns of nothing there."""
    kernel, padding = _pair(layer.kernel_size), _pair(layer.padding)
    if isinstance(layer, nn.MaxPool2d):
        (above, left), dilation = _times(padding, spread), _times(_pair(layer.dilation), spread)
        if spread == (1, 1) and not max(beyond):
            return nn.MaxPool2d(kernel, strides, padding, dilation, ceil_mode=layer.ceil_mode)
        # MaxPool2d itself pads by half of its kernel at the most, however far that is spread.
        border = nn.ConstantPad2d((left, left + beyond[1], above, above + beyond[0]), float("-inf"))
        return nn.Sequential(border, nn.MaxPool2d(kernel, strides, 0, dilation))
    if spread == (1, 1) and not max(beyond):
        ways = layer.ceil_mode, layer.count_include_pad, layer.divisor_override
        return nn.AvgPool2d(kernel, strides, padding, *ways)
    if max(padding) or strides != (1, 1):
        raise UsageError(f"{path} averages over a padding, which does not go with spread windows.")
    return SpreadAverage(kernel, spread, beyond)


class SpreadAverage(nn.Module):
    """The mean of values that lie `dilation` apart, at stride 1, of those that are inside of the map.

    `[N, C, H, W]` becomes `[N, C, H + beyond - dilation * (kernel - 1), ...]`.

    Args:
        kernel: values along both sides of a window.
        dilation: positions between them.
        beyond: how far windows may hang over, below and to the right.
    """

    def __init__(self, kernel: Pair, dilation: Pair, beyond: Pair) -> None:
        super().__init__()
        self.kernel = kernel
        self.dilation = dilation
        self.beyond = beyond

    def forward(self, x: Tensor) -> Tensor:
        return self._sums(x) / self._sums(torch.ones_like(x[:1, :1]))

    def _sums(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, self.beyond[1], 0, self.beyond[0]))
        for axis, kernel, apart in zip((2, 3), self.kernel, self.dilation, strict=True):
            length = x.shape[axis] - apart * (kernel - 1)
            x = torch.stack([x.narrow(axis, tap * apart, length) for tap in range(kernel)]).sum(0)
        return x

    def extra_repr(self) -> str:
        return f"kernel={self.kernel}, dilation={self.dilation}, beyond={self.beyond}"


def _carried(weight: Tensor, channels: int, how: How) -> Tensor:
    """A first layer's weights `[outputs, old, ...]` for another number of channels."""
    old = weight.shape[1]
    if how != "repeat":
        one = weight.sum(1, keepdim=True) / (old if how == "average" else 1)
        return one.expand(-1, channels, *weight.shape[2:]).clone()
    turns = torch.arange(channels) % old
    counts = torch.bincount(turns, minlength=old)[turns].to(weight)
    return weight[:, turns.to(weight.device)] / counts.view(1, -1, *([1] * (weight.ndim - 2)))


def _pair(sides: Any) -> Pair:
    high, wide = (sides, sides) if isinstance(sides, int) else sides
    return int(high), int(wide)


def _times(numbers: Sequence[int], factors: Pair) -> Pair:
    return numbers[0] * factors[0], numbers[1] * factors[1]
