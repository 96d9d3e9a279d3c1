"""What a network holds and costs, measured on the module itself: parameters, multiply-adds, activation memory.

Everything here runs any `nn.Module` and leaves it as it was: modes, buffers, parameters, gradients, random state.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.parameter import is_lazy


@dataclass(frozen=True)
class Parameters:
    """How many numbers a network holds.

    Args:
        trainable: those the optimiser may change; shared ones count once.
        total: trainable and frozen ones; buffers, such as batch norm's running statistics, are not parameters.
    """

    trainable: int
    total: int


def count_parameters(model: nn.Module) -> Parameters:
    """Count a model's parameters; those not yet given a shape (lazy modules) count as none."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters() if not is_lazy(p)]
    return Parameters(sum(size for size, trainable in sizes if trainable), sum(size for size, _ in sizes))


def count_macs(model: nn.Module, input_shape: Sequence[int]) -> int:
    """Count the multiply-adds of convolutions and matrix products for one input, in inference mode.

    Element-wise work (norms, activations, pooling) is not counted, as is the habit in papers (He et al. 2016, table 1).
    One forward pass runs under PyTorch's own counter, which reports two operations per multiply-add.

    Args:
        model: any module.
        input_shape: shape of one input without the batch, `(channels, height, width)` for an image.
    """
    from torch.utils.flop_counter import FlopCounterMode  # which loads triton: 0.1 s that looking at data does not need

    counter = FlopCounterMode(display=False)
    with undisturbed(model, training=False), torch.no_grad(), counter:
        model(zeros(model, (1, *input_shape)))
    return counter.get_total_flops() // 2


def activation_bytes(model: nn.Module, input_shape: Sequence[int], batch: int, *, probe: int = 4) -> int:
    """Estimate the bytes that a training step keeps between its forward and backward pass.

    What autograd saves in a real forward pass of `probe` inputs is summed, each storage once, parameters left out, and
    scaled to `batch`. The gradients' own temporary memory and the workspace of kernels come on top.

    Args:
        model: any module whose output, or outputs, are tensors.
        input_shape: shape of one input without the batch.
        batch: inputs per step to estimate for, at least 1.
        probe: inputs in the measured pass, at least 2, since batch norm refuses to train on a single value.
    """
    own = {p.untyped_storage().data_ptr() for p in model.parameters() if not is_lazy(p)}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor  # held by the graph until the output dies, so that no address is used twice

    with undisturbed(model, training=True), torch.enable_grad(), saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(zeros(model, (probe, *input_shape)))
    total = sum(saved.values())
    del output
    return round(total * batch / probe)


@contextmanager
def undisturbed(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Run a model in training or inference mode inside, and put everything back at the end, also after an error.

    Put back: each module's mode, all buffers and parameters with their gradients, and the random states of PyTorch
    (with the model's devices), NumPy and Python. Lazy parameters which the run gives their shape keep it.
    """
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(module._buffers, dict(module._buffers)) for module in model.modules()]
    tensors = [t for t in (*model.parameters(), *model.buffers()) if not is_lazy(t)]
    copies = [(t, t.detach().clone(), t.grad) for t in tensors]
    devices = sorted({t.device.index for t in tensors if t.device.type == "cuda" and t.device.index is not None})
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=devices):
            model.train(training)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        for module, mode in modes:
            module.training = mode
        for current, registered in buffers:  # a buffer may have been replaced rather than written to
            current.update(registered)
        with torch.no_grad():
            for tensor, copy, gradient in copies:
                if not torch.equal(tensor, copy):
                    tensor.copy_(copy)
                tensor.grad = gradient


def zeros(model: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """A batch of zeros of the type and on the device of the model's first floating-point parameter."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            return torch.zeros(shape, dtype=parameter.dtype, device=parameter.device)
    return torch.zeros(shape)
