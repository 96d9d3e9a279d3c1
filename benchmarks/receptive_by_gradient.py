"""The receptive field of a network as its gradients show it: slow and limited, but independent of `convsmith`.

A copy of the network is made positive, so that nothing cancels: weights are 1 / fan-in, biases 0, norms and activations
leave numbers as they are, maxima become averages, and factors that are the same for all positions (squeeze-excite) are
1. The pixels that then have a gradient, taken at one position of the last map, are its receptive field. All is in
float64, since the outermost pixels have gradients far below float32's smallest number.

It works for networks whose maps are `[N, C, H, W]` and whose activations and norms are torch's functions.

    python benchmarks/receptive_by_gradient.py resnet50 efficientnet_lite0 --side 1024
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

UNCHANGED = {
    "relu", "relu_", "relu6", "hardtanh", "hardtanh_", "silu", "silu_", "gelu", "hardswish", "hardswish_", "elu",
    "elu_", "hardsigmoid", "hardsigmoid_", "sigmoid", "sigmoid_", "tanh", "leaky_relu", "leaky_relu_", "mish", "prelu",
    "dropout", "batch_norm", "layer_norm", "group_norm", "instance_norm",
}  # fmt: skip
"""Functions that return what they are given."""
PRODUCTS = {"mul", "mul_", "__mul__", "__imul__", "__rmul__"}
"""Where one factor has no places, it is taken for 1."""


@dataclass(frozen=True)
class Measured:
    """A receptive field along one side: pixels, pixels between neighbours, centre of the first position's field."""

    size: int
    stride: int
    offset: float


class Positive(TorchFunctionMode):
    """Replaces functions, while it is on, by ones whose gradients are positive."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in UNCHANGED:
            return args[0] if args else kwargs["input"]
        if "max_pool" in name:
            return _averaged(name, *args, **kwargs)
        if name in PRODUCTS and all(isinstance(factor, Tensor) for factor in args[:2]):
            local = [factor for factor in args[:2] if not _placeless(factor)]
            if len(local) == 1:
                return local[0]  # times 1: numbers that multiply themselves would soon be infinite
        return func(*args, **kwargs)


def _placeless(factor: Tensor) -> bool:
    """Whether the last two dimensions of a map hold one number only, expanded or not."""
    sides = zip(factor.shape[-2:], factor.stride()[-2:], strict=True)
    return factor.ndim >= 4 and all(length == 1 or step == 0 for length, step in sides)


def _averaged(
    name: str, images: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """Average pooling in place of a maximum, also a dilated one."""
    if "adaptive" in name:
        return F.adaptive_avg_pool2d(images, kernel_size)
    if torch.Size(_pair(dilation)) == (1, 1):
        return F.avg_pool2d(images, kernel_size, stride or kernel_size, padding, ceil_mode)
    channels, (rows, columns) = images.shape[1], _pair(kernel_size)
    weight = images.new_full((channels, 1, rows, columns), 1 / (rows * columns))
    return F.conv2d(images, weight, None, stride or kernel_size, padding, dilation, channels)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def made_positive(model: nn.Module) -> nn.Module:
    """A copy in float64 whose weights are all positive and keep numbers near 1."""
    model = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            else:
                alone = parameter.numel() == max(parameter.shape, default=1)
                parameter.fill_(1 if alone else 1 / math.prod(parameter.shape[1:]))
    return model.requires_grad_(False)


def last_map(model: nn.Module, image: Tensor, path: str | None = None) -> Tensor:
    """The last `[N, C, H, W]` with more than one place that a module returns, the network itself included.

    Args:
        model: as `made_positive` made it.
        image: of ones, float64, with gradients.
        path: of the one module to look at; None for any.
    """
    maps: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and math.prod(output.shape[2:]) > 1:
            maps[:] = [output]

    with ExitStack() as hooks, Positive():
        for module in model.modules() if path is None else (model.get_submodule(path),):
            hooks.callback(module.register_forward_hook(keep).remove)
        model(image)
    return maps[0]


def extents(maps: Tensor, image: Tensor, axis: int, places: Sequence[int]) -> list[tuple[int, int]]:
    """First and last row (`axis` 0), or column (1), of the pixels that each of these rows or columns of a map draws on.

    `(0, -1)` where it draws on none.
    """
    found = []
    for place in places:
        (gradient,) = torch.autograd.grad(maps.select(2 + axis, place).sum(), image, retain_graph=True)
        there = gradient.abs().sum((0, 1, 3 - axis)).nonzero()[:, 0].tolist()
        found.append((there[0], there[-1]) if there else (0, -1))
    return found


def measured(
    model: nn.Module, side: int, *, across: int = 64, axis: int = 0, channels: int = 3, path: str | None = None
) -> Measured:
    """The receptive field of a network's last map along one side of the image.

    Args:
        model: any network that is described above; left as it was.
        side: of the image along that side, px; more than the field and some strides.
        across: its other side, px.
        axis: 0 for height, 1 for width.
        path: of a module whose map is meant instead.

    Raises:
        ValueError: the field reaches the border, so that its size is not seen, or numbers became infinite.
    """
    sides = (side, across) if axis == 0 else (across, side)
    image = torch.ones((1, channels, *sides), dtype=torch.float64, requires_grad=True)
    maps = last_map(made_positive(model), image, path)
    middle = maps.shape[2 + axis] // 2
    (first, last), (following, end) = extents(maps, image, axis, (middle, middle + 1))
    if not maps.isfinite().all():
        raise ValueError("Numbers became infinite, so that gradients say nothing.")
    if first == 0 or end == side - 1 or last - first != end - following:
        raise ValueError(f"The field reaches the border of {side} px: pixels {first} to {end}.")
    stride = following - first
    return Measured(last - first + 1, stride, (first + last) / 2 - middle * stride)


def main() -> None:
    import timm

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--side", type=int, default=1024)
    options = parser.parse_args()
    for name in options.models:
        model = timm.create_model(name)
        print(name, measured(model, options.side), measured(model, options.side, axis=1), flush=True)


if __name__ == "__main__":
    main()
