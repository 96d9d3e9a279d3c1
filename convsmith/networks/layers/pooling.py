"""Pooling that PyTorch does not have, or not as it is needed here."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class StochasticPool2d(nn.Module):
    """Pooling that draws one value of each window while training, and takes their weighted mean at inference.

    A value is drawn with a probability in proportion to itself; the same probabilities weigh the mean (Zeiler & Fergus
    2013, equations 4 to 6). The paper pools the results of ReLU: values below zero are taken as zero here, and a window
    without any above it gives zero. Windows that overlap share their draws, which leaves each one's distribution as it
    is.

    `[N, C, H, W]` becomes `[N, C, H', W']` as with `nn.MaxPool2d`.

    Args:
        kernel_size: side of the windows in positions.
        stride: from window to window; `None` is `kernel_size`.
        ceil_mode: whether a last window may hang over the end.
    """

    def __init__(self, kernel_size: int, stride: int | None = None, ceil_mode: bool = False) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.ceil_mode = ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        return self._drawn(x.relu()) if self.training else self._weighted(x.relu())

    def _drawn(self, positive: Tensor) -> Tensor:
        # Of waiting times that are exponential with these rates, the one of rate a is the shortest with probability
        # a / sum(a); max-pooling of their inverses finds it. In float32, as bfloat16 would have many ties.
        rates = positive.detach().float()
        speeds = rates / torch.empty_like(rates).exponential_().clamp_min(torch.finfo(rates.dtype).tiny)
        _, place = F.max_pool2d(speeds, self.kernel_size, self.stride, ceil_mode=self.ceil_mode, return_indices=True)
        return positive.flatten(2).gather(2, place.flatten(2)).view(place.shape)

    def _weighted(self, positive: Tensor) -> Tensor:
        # The mean of squares over the mean is the sum of a * a / sum(a), with both divisors gone. Squares of halves
        # leave their range, so that they are taken in float32.
        wide = positive.to(torch.promote_types(positive.dtype, torch.float32))
        squares = F.avg_pool2d(wide.square(), self.kernel_size, self.stride, ceil_mode=self.ceil_mode)
        mean = F.avg_pool2d(wide, self.kernel_size, self.stride, ceil_mode=self.ceil_mode)
        return (squares / mean.clamp_min(torch.finfo(wide.dtype).tiny)).to(positive.dtype)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, ceil_mode={self.ceil_mode}"


class FractionalMaxPool2d(nn.Module):
    """Max-pooling whose windows lie closer or wider by chance, so that sides shrink by any ratio (Graham 2014).

    PyTorch does the pooling. Its own layer draws at inference too, so that an image has another result each time; here
    the places are then those in the middle of the draw's range. They are drawn for each image and channel.

    `[N, C, H, W]` becomes `[N, C, int(H * output_ratio), int(W * output_ratio)]`.

    Args:
        kernel_size: side of the windows in positions.
        output_ratio: what is left of each side, above 0 and below 1.
    """

    def __init__(self, kernel_size: int, output_ratio: float) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.output_ratio = output_ratio

    def forward(self, x: Tensor) -> Tensor:
        shape, like = (*x.shape[:2], 2), {"dtype": x.dtype, "device": x.device}
        places = torch.rand(shape, **like) if self.training else torch.full(shape, 0.5, **like)
        ratio = (self.output_ratio, self.output_ratio)
        return F.fractional_max_pool2d(x, self.kernel_size, output_ratio=ratio, _random_samples=places)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, output_ratio={self.output_ratio}"
