"""3x3 convolutions by fewer multiplications (Lavin & Gray 2016).

Instead of nine products for each position, channel and kernel, tiles of the image and the kernel are transformed, so
that a tile of results takes one product for each value of the image's tile: F(2x2, 3x3) makes 2x2 results of 4x4
values by 16 products instead of 36, and F(4x4, 3x3) 4x4 of 6x6 by 36 instead of 144. The transforms are sums and
products by constants, which this count leaves out and a clock does not. Tiles overlap by two; at an edge that they do
not fit, they hang over and the rest is cut off.

The matrices are those of the paper's sections 4.1 and 4.3. That of the kernel, which has fractions, is kept as whole
numbers and a divisor, so that it is exact in every type.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convsmith.design import PaddingMode
from convsmith.errors import UsageError

Tile = Literal[2, 4]
KERNEL = 3


@dataclass(frozen=True)
class _Transforms:
    """Equation 8: results = A' [(G g G') * (B' d B)] A, B' is `image`, G is `weight / divisor`, A' is `result`."""

    image: tuple[tuple[int, ...], ...]
    weight: tuple[tuple[int, ...], ...]
    divisor: int
    result: tuple[tuple[int, ...], ...]


TRANSFORMS = {
    2: _Transforms(
        image=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
        weight=((2, 0, 0), (1, 1, 1), (1, -1, 1), (0, 0, 2)),
        divisor=2,
        result=((1, 1, 1, 0), (0, 1, -1, -1)),
    ),
    4: _Transforms(
        image=(
            (4, 0, -5, 0, 1, 0),
            (0, -4, -4, 1, 1, 0),
            (0, 4, -4, -1, 1, 0),
            (0, -2, -1, 2, 1, 0),
            (0, 2, -1, -2, 1, 0),
            (0, 4, 0, -5, 0, 1),
        ),
        weight=((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24)),
        divisor=24,
        result=((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
    ),
}


@dataclass(frozen=True)
class Multiplications:
    """Products of an image's values with a kernel's, for one image.

    Args:
        direct: of the plain convolution.
        winograd: of the transformed one, tiles that hang over the edge counted whole.
    """

    direct: int
    winograd: int

    @property
    def saving(self) -> float:
        """How many times fewer: 2.25 or 4 where tiles fit."""
        return self.direct / self.winograd


def multiplications(tile: Tile, in_channels: int, out_channels: int, height: int, width: int) -> Multiplications:
    """Count the products of a 3x3 convolution both ways.

    Args:
        tile: 2 for F(2x2, 3x3), 4 for F(4x4, 3x3).
        in_channels, out_channels: of the convolution.
        height, width: of its result.
    """
    tiles = -(-height // tile) * -(-width // tile)
    pairs = in_channels * out_channels
    return Multiplications(pairs * KERNEL**2 * height * width, pairs * (tile + KERNEL - 1) ** 2 * tiles)


class WinogradConv2d(nn.Module):
    """A 3x3 convolution of stride 1 whose products are taken between transformed tiles.

    It holds the weight and bias of the `nn.Conv2d` that it equals, under the same names, and learns as that does: the
    kernel is transformed anew in each pass. `precomputed` gives a layer for inference, which has that behind it.
    Within, numbers are float32 at least: in bfloat16 the larger tile would be off by 2 %. Results are channels last.

    `[N, in_channels, H, W]` becomes `[N, out_channels, H + 2 * padding - 2, W + 2 * padding - 2]`.

    Args:
        in_channels, out_channels: as in `nn.Conv2d`.
        padding: rows and columns added on each side; 1 keeps the size.
        bias: whether each output has one.
        padding_mode: what is added: zeros, reflect, replicate or circular.
        tile: side of the tiles of results, 2 or 4: 2.25 or 4 times fewer products, with errors of rounding near 4e-7 or
            8e-6 of the largest result.

    Raises:
        UsageError: tiles of another side.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        padding: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        tile: Tile = 4,
    ) -> None:
        super().__init__()
        plain = nn.Conv2d(in_channels, out_channels, KERNEL, padding=padding, bias=bias, padding_mode=padding_mode)
        self.weight, self.bias = plain.weight, plain.bias
        self.padding, self.padding_mode = padding, plain.padding_mode
        self.tiles = Tiles(tile)

    @classmethod
    def of(cls, conv: nn.Conv2d, tile: Tile = 4) -> Self:
        """The same convolution by Winograd's way; the weights are shared.

        Raises:
            UsageError: its kernel is not 3x3, or it strides, is dilated, in groups, or unevenly padded.
        """
        plain = (conv.kernel_size, conv.stride, conv.dilation, conv.groups) == ((3, 3), (1, 1), (1, 1), 1)
        padding = {"same": (1, 1), "valid": (0, 0)}.get(str(conv.padding), conv.padding)
        if not plain or padding[0] != padding[1]:
            raise UsageError(
                f"{conv} has no Winograd form.",
                mend="Take 3x3 convolutions of stride 1, without dilation or groups, padded equally on all sides.",
            )
        made = cls(conv.in_channels, conv.out_channels, int(padding[0]), tile=tile, padding_mode=conv.padding_mode)
        made.weight, made.bias = conv.weight, conv.bias
        return made

    def precomputed(self) -> PrecomputedWinogradConv2d:
        """The layer as it is now, for inference: its kernel is transformed and learns no more."""
        return PrecomputedWinogradConv2d(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.tiles(x, self.tiles.kernel(self.weight), self.bias, self.padding, self.padding_mode)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}, padding={self.padding}, mode={self.padding_mode}"


class PrecomputedWinogradConv2d(nn.Module):
    """`WinogradConv2d` with its kernel transformed once, for inference; made by its `precomputed`.

    It has no parameters; its buffers are the kernel, which takes 16/9 or 4 times the memory, and the bias. Leave them
    float32, whatever type the images have: in bfloat16, results of the larger tile are off by 2 %.
    """

    kernel: Tensor
    bias: Tensor | None

    def __init__(self, layer: WinogradConv2d) -> None:
        super().__init__()
        bias = layer.bias
        self.tiles = Tiles(layer.tiles.tile)
        self.tiles.to(layer.weight.device)
        self.register_buffer("kernel", layer.tiles.kernel(layer.weight.detach()).contiguous())
        self.register_buffer("bias", None if bias is None else bias.detach().clone())
        self.padding, self.padding_mode = layer.padding, layer.padding_mode

    def forward(self, x: Tensor) -> Tensor:
        return self.tiles(x, self.kernel, self.bias, self.padding, self.padding_mode)


class Tiles(nn.Module):
    """The transforms between images, kernels or results and their tiles, each as one matrix over a whole tile.

    Whole numbers, they are exact in every type that the layer is cast to.

    Args:
        tile: side of the tiles of results, 2 or 4.
    """

    image: Tensor
    weight: Tensor
    result: Tensor

    def __init__(self, tile: Tile) -> None:
        super().__init__()
        if tile not in TRANSFORMS:
            raise UsageError(f"Winograd convolution has no tiles of {tile}x{tile} results.", mend="Use 2 or 4.")
        self.tile: Tile = tile
        self.side = tile + KERNEL - 1
        for name in ("image", "weight", "result"):
            matrix = torch.tensor(getattr(TRANSFORMS[tile], name), dtype=torch.float32)
            self.register_buffer(name, torch.kron(matrix, matrix), persistent=False)

    def kernel(self, weight: Tensor) -> Tensor:
        """Transform kernels: `[out, in, 3, 3]` to `[values of an image's tile, in, out]`, float32 at least."""
        with torch.autocast(weight.device.type, enabled=False):
            wide = _wide(weight)
            values = wide.permute(2, 3, 1, 0).reshape(KERNEL**2, -1)
            matrix = self.weight.to(wide.dtype) / TRANSFORMS[self.tile].divisor ** 2
            return (matrix @ values).view(-1, wide.shape[1], wide.shape[0])

    def forward(self, x: Tensor, kernel: Tensor, bias: Tensor | None, padding: int, mode: str) -> Tensor:
        """Convolve `[N, in, H, W]` by transformed kernels."""
        height, width = (side + 2 * padding - KERNEL + 1 for side in x.shape[2:])
        if min(height, width) < 1:
            raise UsageError(
                f"A 3x3 convolution does not fit into an image of {x.shape[2]}x{x.shape[3]} px padded by {padding}.",
                mend="Give larger images, or `padding` 1.",
            )
        down, across = -(-height // self.tile), -(-width // self.tile)
        with torch.autocast(x.device.type, enabled=False):
            image = _padded(_wide(x), padding, mode, down * self.tile - height, across * self.tile - width)
            pixels = image.permute(0, 2, 3, 1).contiguous()  # so that tiles are copied by whole channels
            tiles = pixels.unfold(1, self.side, self.tile).unfold(2, self.side, self.tile)
            values = self.image.to(image.dtype) @ tiles.permute(4, 5, 0, 1, 2, 3).reshape(self.side**2, -1)
            products = torch.bmm(values.view(self.side**2, -1, x.shape[1]), kernel.to(image.dtype))
            results = self.result.to(image.dtype) @ products.view(self.side**2, -1)
            grid = results.view(self.tile, self.tile, x.shape[0], down, across, -1)
            whole = grid.permute(2, 3, 0, 4, 1, 5).reshape(x.shape[0], down * self.tile, across * self.tile, -1)
            cut = whole[:, :height, :width]
            summed = cut if bias is None else cut + bias.to(cut.dtype)
        return summed.permute(0, 3, 1, 2).to(x.dtype)

    def extra_repr(self) -> str:
        return f"F({self.tile}x{self.tile}, 3x3)"


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _padded(x: Tensor, padding: int, mode: str, below: int, right: int) -> Tensor:
    """Pad on all sides as asked, then with zeros until tiles fit."""
    if mode == "zeros":
        return F.pad(x, (padding, padding + right, padding, padding + below))
    return F.pad(F.pad(x, (padding,) * 4, mode=mode), (0, right, 0, below))
