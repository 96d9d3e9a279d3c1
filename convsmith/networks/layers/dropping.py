"""DropBlock, as torchvision has it but for images smaller than its blocks."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.ops import drop_block2d

from convsmith.errors import UsageError


class DropBlock2d(nn.Module):
    """Sets square blocks of each channel to zero while training (Ghiasi et al. 2018, algorithm 1).

    torchvision does the dropping. Its own layer shrinks a block that is larger than the image to the image's side, and
    then stops at the even sides that it does not take: here the block shrinks to the largest odd side that fits.

    `[N, C, H, W]` stays so, and what is left is scaled so that the mean stays the same on average.

    Args:
        p: share of the values to drop, 0 to 1.
        block_size: side of the blocks in positions, odd; 7 in the paper.

    Raises:
        UsageError: a block of an even side, which has no middle.
    """

    def __init__(self, p: float, block_size: int = 7) -> None:
        super().__init__()
        if block_size % 2 == 0:
            raise UsageError(
                f"DropBlock cannot drop blocks of {block_size}x{block_size}, which have no middle.",
                mend=f"Use {block_size - 1} or {block_size + 1}.",
            )
        self.p = p
        self.block_size = block_size

    def forward(self, x: Tensor) -> Tensor:
        side = min(self.block_size, *x.shape[2:])
        return drop_block2d(x, self.p, side - 1 + side % 2, training=self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}, block_size={self.block_size}"
