"""What a network costs, counted on real runs by PyTorch's own tools and not by Convsmith."""

from __future__ import annotations

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode


def counted(model: nn.Module, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Parameters, multiply-adds of one image, and bytes that autograd keeps of one image more."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model.eval()(torch.rand(1, *shape))
    one, two = (_kept(model, shape, batch) for batch in (2, 3))
    # What does not grow with the batch, such as the statistics of batch norm, is kept once.
    return sum(each.numel() for each in model.parameters()), counter.get_total_flops() // 2, 2 * one - two


def _kept(model: nn.Module, shape: tuple[int, int, int], batch: int) -> int:
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    held: dict[int, torch.Tensor] = {}

    def hold(tensor: torch.Tensor) -> torch.Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in own:
            held[address] = tensor
        return tensor

    with saved_tensors_hooks(hold, lambda tensor: tensor):
        output = model.train()(torch.rand(batch, *shape))
    size = sum(tensor.untyped_storage().nbytes() for tensor in held.values())
    del output
    return size
