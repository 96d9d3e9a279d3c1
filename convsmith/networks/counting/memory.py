"""How much memory a network takes, without running it.

Each piece of memory is counted from its birth to its death, as Python and autograd would hold it: in inference by the
recorded graph, in training by a forward and a backward pass over fake tensors. It is what PyTorch's allocator gives
out, with what convolutions and LSTMs take for a moment on a processor (see `workspaces`). A process holds more:
PyTorch itself, and what the C library keeps after it was freed, on Linux about a third more at worst.

What fused attention takes for a moment is not counted: a network of one small attention layer was said 7 % too low in
bfloat16 and 2 % in float32. Nor is all that an LSTM takes for a single image without gradients: 9 % too low.
"""

from __future__ import annotations

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
from convsmith.networks.counting.workspaces import (
    Convolution,
    forward_workspace,
    gradient_workspace,
    recorded_workspace,
    recurrent_kept,
    recurrent_workspace,
)
from convsmith.networks.recording.graph import Graph
from convsmith.networks.recording.imagined import SIZE_MEND, Imagined, Storages, imagined, refusal, tensors_in, watched

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
    with imagined(model, training=True) as fake, torch.enable_grad(), _Recurrent():
        ledger, kept = _Ledger(fake), _Kept(fake)
        weights = ledger.now
        with ledger:
            images = fake.images(batch, shape)  # which the caller of a step holds until its end
            output = _forward(model, images, kept, precision)
            with _autocast(fake.device, precision), kept.hooks():
                loss = _loss(output)
            activations = kept.total
            if loss.requires_grad:
                _backward(model, loss)
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
    with imagined(model, training=True) as fake, torch.enable_grad(), _Recurrent():
        kept = _Kept(fake)
        output = _forward(model, fake.images(batch, shape), kept, "float32")
        found = kept.by_call()
        del output
    return found


def held_bytes(model: nn.Module) -> int:
    """Bytes of a network's parameters and buffers, shared memory once."""
    tensors = [tensor for tensor in (*model.parameters(), *model.buffers()) if not is_lazy(tensor)]
    return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}.values())


def inference_bytes(graph: Graph, model: nn.Module) -> int:
    """The most memory at any moment of an inference pass, in bytes, the network's own included.

    Args:
        graph: of the pass.
        model: that was recorded.
    """
    change = Counter[int]()
    seen: set[int] = set()
    born = {**dict.fromkeys(graph.inputs, 0), **graph.producer()}
    held = held_bytes(model)
    for value in graph.values:
        if value.storage not in seen and value.index in born:
            change[born[value.index]] += value.bytes
            change[graph.freed.get(value.storage, len(graph.operations))] -= value.bytes
        elif value.storage not in seen and value.kind == "constant":  # which the network holds unregistered
            held += value.bytes
        seen.add(value.storage)
    alive = accumulate(change[operation.index] for operation in graph.operations)
    on_processor = all(parameter.device.type in ("cpu", "meta") for parameter in model.parameters())
    work = (recorded_workspace(operation, graph) if on_processor else 0 for operation in graph.operations)
    return held + max(map(sum, zip(alive, work, strict=True)), default=graph.values[graph.inputs[0]].bytes)


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
        self.peak = max(self.peak, self.now, self.now + _workspace(func, args, result))
        return result

    def _count(self, tensor: Tensor) -> None:
        number = self._storages.number(tensor)
        if number not in self._bytes:
            self._bytes[number] = tensor.untyped_storage().nbytes()
            self.now += self._bytes[number]

    def _free(self, number: int) -> None:
        self.now -= self._bytes.pop(number, 0)


def _workspace(func: Any, args: Sequence[Any], result: Any) -> int:
    """Bytes that an operation takes for a moment, beyond what it makes; as far as that is known."""
    aten = torch.ops.aten
    if func is aten.convolution.default and args[0].device.type == "cpu":
        images, weight, _, *rest = args
        return forward_workspace(Convolution.called(images, weight, result, rest))
    if func is aten.convolution_backward.default and args[1].device.type == "cpu":
        gradient, images, weight, _, *rest, (of_images, of_weights, _) = args
        return gradient_workspace(Convolution.called(images, weight, gradient, rest), of_images, of_weights)
    if func in (aten.mean.dim, aten.mean.default) and args[0].device.type == "cpu":
        return (
            4 * args[0].numel() if args[0].dtype in (torch.bfloat16, torch.half) else 0
        )  # which it turns into float32
    if func is aten.mkldnn_rnn_layer.default:
        return recurrent_workspace(args[0], args[10])
    if func is aten.mkldnn_rnn_layer_backward.default:
        return recurrent_workspace(args[0], args[15], args[10])
    return 0


class _Recurrent(TorchDispatchMode):
    """Gives what an LSTM keeps for its backward pass its size, which PyTorch's fake of it leaves out."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is not torch.ops.aten.mkldnn_rnn_layer.default:
            return result
        *made, _ = result
        images, hidden, train = args[0], args[10], args[15]
        kept = recurrent_kept(images, hidden) if train else 0
        return (*made, torch.empty(kept, dtype=torch.uint8, device=images.device))


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


def _backward(model: nn.Module, loss: Tensor) -> None:
    try:
        loss.backward()
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UsageError(f"{type(model).__name__} has no backward pass: {reason}.") from error


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
