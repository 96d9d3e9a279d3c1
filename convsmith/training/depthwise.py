"""Depthwise convolutions in bfloat16 on processors, whose gradients are computed in float32 where that is faster.

oneDNN, which PyTorch asks, has no fast bfloat16 kernel for two of the gradients of a depthwise convolution: that of the
input where the stride is above 1, and that of the kernel where it is larger than 3 x 3. Measured on an AVX-512 machine
without AMX they take 3 to 25 times as long as in float32 (672 channels of 17 x 17, 5 x 5, stride 2: 51 ms and 37 ms
against 1.9 ms and 8.2 ms), and half of a whole training step of an EfficientNet. Forward passes and the other gradients
are faster in bfloat16 and stay there. `benchmarks/depthwise.py` measures what it brings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

_NAMES = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_FAST_KERNEL = 3


def has_depthwise(model: nn.Module) -> bool:
    """Whether some convolution of two dimensions treats every channel by itself."""
    return any(_is_depthwise(module) for module in model.modules())


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups > 1 and module.groups == module.in_channels


class DepthwiseGradients(TorchFunctionMode):
    """Within, depthwise convolutions under bfloat16 autocast on the processor have these gradients; all else is as is.

    The gradients can be taken once, not twice: a penalty on gradients raises torch's error.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv2d and torch.is_grad_enabled():
            given = {**dict(zip(_NAMES, args, strict=False)), **kwargs}
            if _applies(given):
                sizes = (_pair(given.get("stride", 1)), _pair(given.get("padding", 0)), _pair(given.get("dilation", 1)))
                return _Depthwise.apply(given["input"], given["weight"], given.get("bias"), *sizes)
        return func(*args, **kwargs)


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
    ) -> Tensor:
        """Convolve in bfloat16."""
        half = (x.to(torch.bfloat16), weight.to(torch.bfloat16))
        ctx.save_for_backward(*half)
        ctx.sizes = stride, padding, dilation
        ctx.dtypes = x.dtype, weight.dtype, None if bias is None else bias.dtype
        return torch.conv2d(*half, None if bias is None else bias.to(torch.bfloat16), *ctx.sizes, x.shape[1])

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Each gradient in the precision in which it is faster."""
        x, weight = ctx.saved_tensors
        (stride, _, _), (of_x, of_weight, of_bias) = ctx.sizes, ctx.dtypes
        half, full = (gradient, x, weight), None
        exact = max(stride) > 1, max(weight.shape[2:]) > _FAST_KERNEL
        if (exact[0] and ctx.needs_input_grad[0]) or (exact[1] and ctx.needs_input_grad[1]):
            full = gradient.float(), x.float(), weight.float()
        found: list[Tensor | None] = [None, None]
        for k in (0, 1):
            if ctx.needs_input_grad[k]:
                operands = full if exact[k] and full is not None else half
                found[k] = _gradients(operands, ctx.sizes, (k == 0, k == 1))[k].to((of_x, of_weight)[k])
        bias = gradient.sum((0, 2, 3), dtype=torch.float32).to(of_bias) if ctx.needs_input_grad[2] else None
        return found[0], found[1], bias, None, None, None


def _gradients(
    operands: Sequence[Tensor], sizes: Sequence[tuple[int, int]], wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    gradient, x, weight = operands
    return torch.ops.aten.convolution_backward(
        gradient, x, weight, None, *(list(size) for size in sizes), False, [0, 0], x.shape[1], [*wanted, False]
    )


def _applies(given: Mapping[str, Any]) -> bool:
    x, weight = given["input"], given["weight"]
    return (
        x.device.type == "cpu"
        and x.dim() == 4
        and given.get("groups", 1) == x.shape[1] > 1
        and not isinstance(given.get("padding", 0), str)
        and (x.requires_grad or weight.requires_grad)
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
    )


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (value[0], value[0]) if len(value) == 1 else (value[0], value[1])
