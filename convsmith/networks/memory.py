"""How much memory a network takes, without running it.

Each piece of memory is counted from its birth to its death, as Python and autograd would hold it: in inference by the
recorded graph, in training by a forward and a backward pass over fake tensors. What PyTorch takes before the first
image comes on top, and what kernels take for a moment: on a processor, oneDNN copies what a convolution reads and makes
into layouts of its own, one layer at a time. Of that only what is made of weights is counted (see `_workspace`), since
it does not shrink with the batch.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode

from convsmith.errors import UsageError
from convsmith.networks.graph import Graph
from convsmith.networks.imagined import SIZE_MEND, Imagined, Storages, imagined, refusal, tensors_in, watched

Optimizer = Literal["none", "sgd", "momentum", "adamw"]
Precision = Literal["float32", "bfloat16"]
STATES: Mapping[str, int] = {"none": 0, "sgd": 0, "momentum": 1, "adamw": 2}
"""Numbers that an optimiser keeps for each weight."""
_STEP_BYTES = 4  # adamw counts its steps in a tensor for each parameter


@dataclass(frozen=True)
class Memory:
    """The memory of a training step, in bytes.

    Args:
        weights: parameters and buffers.
        gradients: all of them, as they are after the backward pass.
        optimizer: what the optimiser keeps from step to step.
        activations: what autograd keeps between the forward and the backward pass, the images included.
        peak: the most at any moment of a step, all of the above included as far as it is there at that moment.
        tensors: how many gradients there are.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    peak: int
    tensors: int

    def under(self, optimizer: Optimizer) -> Memory:
        """The same with another optimiser, whose fused update changes weights and state in place."""
        if optimizer not in STATES:
            raise UsageError(f"There is no optimiser {optimizer!r} here.", mend=f"One of {', '.join(STATES)}.")
        state = STATES[optimizer] * self.gradients + (_STEP_BYTES * self.tensors if optimizer == "adamw" else 0)
        return replace(self, optimizer=state, peak=self.peak - self.optimizer + state)


def training_memory(
    model: nn.Module,
    shape: Sequence[int],
    *,
    batch: int,
    optimizer: Optimizer = "momentum",
    precision: Precision = "float32",
) -> Memory:
    """The memory of a training step, from a forward and a backward pass in which nothing is computed.

    Args:
        model: any module that takes one tensor; left as it was. Frozen parameters have no gradients.
        shape: of one image, `(channels, height, width)`.
        batch: images in a step.
        optimizer: `sgd` has no momentum.
        precision: `bfloat16` is autocast, which keeps the weights in float32.

    Raises:
        UsageError: the network asks for values of the image, or cannot be trained with such a batch.
    """
    with imagined(model, training=True) as fake, torch.enable_grad():
        ledger, kept = _Ledger(fake), _Kept(fake)
        weights = ledger.now
        with ledger:
            images = fake.images(batch, shape)  # which the caller of a step holds until its end
            output = _forward(model, images, kept, precision)
            with _autocast(fake.device, precision), kept.hooks():
                loss = _loss(output)
            activations = kept.total
            if loss.requires_grad:
                loss.backward()
        gradients = [parameter.grad for parameter in fake.parameters.values() if parameter.grad is not None]
        size = sum(gradient.untyped_storage().nbytes() for gradient in gradients)
    return Memory(weights, size, 0, activations, ledger.peak, len(gradients)).under(optimizer)


def kept_by_call(model: nn.Module, shape: Sequence[int], *, batch: int) -> Mapping[tuple[str, int], int]:
    """What autograd keeps in a training step because of each call of a module, in bytes.

    A tensor that several operations keep counts for the first of them.

    Returns:
        bytes by the path of the innermost module and which of its calls it was, counted from 0.

    Raises:
        UsageError: the network asks for values of the image, or cannot be trained with such a batch.
    """
    with imagined(model, training=True) as fake, torch.enable_grad():
        kept = _Kept(fake)
        output = _forward(model, fake.images(batch, shape), kept, "float32")
        found = kept.by_call()
        del output
    return found


def held_bytes(model: nn.Module) -> int:
    """Bytes of a network's parameters and buffers, shared memory once."""
    tensors = [tensor for tensor in (*model.parameters(), *model.buffers()) if not is_lazy(tensor)]
    return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}.values())


def inference_bytes(graph: Graph, held: int) -> int:
    """The most memory at any moment of an inference pass, in bytes.

    Args:
        graph: of the pass.
        held: bytes of the network itself, see `held_bytes`.
    """
    change = Counter[int]()
    seen: set[int] = set()
    born = {**dict.fromkeys(graph.inputs, 0), **graph.producer()}
    for value in graph.values:  # one without a producer is the network's own, and in `held`
        if value.storage not in seen and value.index in born:
            change[born[value.index]] += value.bytes
            change[graph.freed.get(value.storage, len(graph.operations))] -= value.bytes
        seen.add(value.storage)
    return held + max(accumulate(change[place] for place in range(len(graph.operations) + 1)))


class _Ledger(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive: now, and at the worst moment."""

    def __init__(self, fake: Imagined) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._bytes: dict[int, int] = {}
        self._storages = Storages(self._free)
        for tensor in (*fake.parameters.values(), *fake.buffers.values()):
            self._count(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tensors_in(result):
            self._count(tensor)
        if func is torch.ops.aten.convolution_backward.default:
            self.peak = max(self.peak, self.now + _workspace(args[1], args[2], args[4], args[6], args[9]))
        self.peak = max(self.peak, self.now)
        return result

    def _count(self, tensor: Tensor) -> None:
        number = self._storages.number(tensor)
        if number not in self._bytes:
            self._bytes[number] = tensor.untyped_storage().nbytes()
            self.now += self._bytes[number]

    def _free(self, number: int) -> None:
        self.now -= self._bytes.pop(number, 0)


def _workspace(images: Tensor, weight: Tensor, stride: Sequence[int], dilation: Sequence[int], groups: int) -> int:
    """Bytes that oneDNN takes for a moment for the gradient of a convolution's weights, on a processor.

    It makes it in a layout of its own, in bfloat16 from sums in float32, and copies it; where images lie channels last,
    it also copies the weights. Groups are then laid out in blocks of 16 x 16 channels (8 x 8 without AVX-512): 256
    times their size where they have one channel, but for 3x3, which has a kernel of its own. What it takes for images
    is small by comparison where the peak is, at the end of the network. Measured with PyTorch 2.14.
    """
    if images.device.type != "cpu" or images.ndim != 4:
        return 0
    outputs, inputs, *kernel = weight.shape
    full = weight.dtype == torch.float32
    last = images.stride(1) == 1 != images.stride(3)
    if full and max(*kernel, *stride) == 1 == torch.get_num_threads() and groups == 1 and images.shape[0] < 16:
        return 0  # PyTorch's own kernel
    if not last or groups == 1 or (inputs == 1 and outputs == groups and max(kernel) <= 3 and max(dilation) == 1):
        return weight.numel() * ((12 if full else 6) if last and groups == 1 else 4)
    block = 16 if "AVX512" in torch.backends.cpu.get_cpu_capability() else 8
    blocks = groups * math.ceil(inputs / block) * math.ceil(outputs / groups / block) * block**2 * math.prod(kernel)
    positions = math.prod(images.shape[2:]) * (1 + 1 / math.prod(stride))
    return 4 * blocks if full else 6 * blocks + round(2 * block * groups * positions)


class _Kept:
    """Notes what autograd keeps, and which call of which module made it do so."""

    def __init__(self, fake: Imagined) -> None:
        self._stack: list[tuple[str, int]] = []
        self._calls = Counter[str]()
        self._found: dict[int, tuple[tuple[str, int], int]] = {}
        self._storages = Storages(lambda number: self._found.pop(number, None))
        self._own = {self._storages.number(tensor) for tensor in (*fake.parameters.values(), *fake.buffers.values())}

    @property
    def total(self) -> int:
        """Bytes that are kept now."""
        return sum(size for _, size in self._found.values())

    @property
    def place(self) -> str:
        """Path of the innermost module that is being called, or was when it failed."""
        return next((path for path, _ in reversed(self._stack) if path), "")

    def by_call(self) -> dict[tuple[str, int], int]:
        """Bytes that are kept now, by path and number of the call."""
        found = Counter[tuple[str, int]]()
        for call, size in self._found.values():
            found[call] += size
        return dict(found)

    def enter(self, path: str, module: nn.Module, inputs: Any) -> None:
        """A module is called."""
        self._stack.append((path, self._calls[path]))
        self._calls[path] += 1

    def leave(self, module: nn.Module, output: Any) -> None:
        """A module returns."""
        self._stack.pop()

    def hooks(self) -> saved_tensors_hooks:
        """A context within which it takes note."""
        return saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        number = self._storages.number(tensor)
        if number not in self._own and number not in self._found:
            call = self._stack[-1] if self._stack else ("", -1)
            self._found[number] = call, tensor.untyped_storage().nbytes()
        return tensor


def _forward(model: nn.Module, images: Tensor, kept: _Kept, precision: Precision) -> Any:
    with ExitStack() as within:
        within.enter_context(watched(model, kept.enter, kept.leave))
        within.enter_context(kept.hooks())
        within.enter_context(_autocast(images.device, precision))
        try:
            return model(images)
        except Exception as error:
            shape = tuple(images.shape[1:])
            mend = "Train with at least 2 images in a batch." if len(images) == 1 else SIZE_MEND
            raise refusal(model, shape, error, kept.place, mend) from error


def _autocast(device: torch.device, precision: Precision) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def _loss(output: Any) -> Tensor:
    """Cross-entropy over the second dimension of all that the network returns; a mean where there is none."""
    losses = [torch.zeros(())]
    for tensor in tensors_in(output):
        if tensor.ndim >= 2 and tensor.is_floating_point():
            target = torch.zeros((tensor.shape[0], *tensor.shape[2:]), dtype=torch.long, device=tensor.device)
            losses.append(nn.functional.cross_entropy(tensor.float(), target))
        elif tensor.is_floating_point():
            losses.append(tensor.float().mean())
    return sum(losses[1:], losses[0])
