"""Networks that are looked at, and are as they were when that is over."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from convsmith.errors import UsageError


@contextmanager
def untouched(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Hold a network in training or inference mode inside, and put back at the end what its code may have changed.

    Put back: each module's mode, attributes and registered tensors, what its lists and dictionaries hold (some networks
    keep tensors there from one call to the next), and the random states of PyTorch, NumPy and Python. Not the numbers
    in its tensors.
    """
    held = [(vars(module), dict(vars(module)), _containers(module)) for module in model.modules()]
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            model.train(training)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        for attributes, before, containers in held:
            attributes.clear()
            attributes.update(before)
            for name, content in containers.items():
                container = attributes[name]
                container.clear()
                (container.extend if isinstance(container, list) else container.update)(content)


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


def duplicate(model: nn.Module) -> nn.Module:
    """A copy of a network, with tensors of its own.

    Raises:
        UsageError: it holds tensors that are computed from others, such as weights under weight norm or pruning.
    """
    held = next(((path, name) for path, module in model.named_modules() for name in computed(module)), None)
    if held is not None:
        path, name = held
        raise UsageError(
            f"{type(model).__name__} cannot be copied: {name} of {path or 'the network itself'} is computed from other "
            "tensors, as by weight norm, spectral norm or pruning.",
            mend="Fold it first: torch.nn.utils.remove_weight_norm, remove_spectral_norm or prune.remove.",
        )
    return copy.deepcopy(model)


def computed(module: nn.Module) -> list[str]:
    """The names of a module's tensors that are computed from others, as weight norm and pruning do before each call."""
    tensors = {name: held for name, held in {**vars(module), **module._buffers}.items() if isinstance(held, Tensor)}
    own = module._parameters
    return [name for name, held in tensors.items() if not held.is_leaf or {f"{name}_orig", f"{name}_g"} & own.keys()]


def zeros(model: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """A batch of zeros of the type and on the device of the model's first floating-point parameter."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            return torch.zeros(shape, dtype=parameter.dtype, device=parameter.device)
    return torch.zeros(shape)


def _containers(module: nn.Module) -> dict[str, Any]:
    return {name: copy.copy(value) for name, value in vars(module).items() if isinstance(value, (dict, list, set))}
