"""What a network computes, as a graph of ATen operations, recorded from one forward pass in which nothing is computed.

The pass runs on fake tensors, which have shapes and no data, so it costs a fraction of a second and no memory whatever
the size of the network or the image, and leaves parameters, buffers and random states as they were. Unlike
`torch.export`, it takes any Python code: what is recorded is what this network does with an image of this size. Where
the code asks for the values of the image, it cannot be said, and is refused with the reason.

Everything that is said of a network without training it is read from this graph: shapes, multiply-adds, memory,
receptive field, drawings, design rules.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from convsmith.errors import UsageError
from convsmith.networks.recording.imagined import (
    Imagined,
    Storages,
    channels_last,
    imagined,
    refusal,
    tensors_in,
    watched,
)

Kind = Literal["input", "parameter", "buffer", "constant", "result"]
WRITTEN = "written"
"""The target of an operation of ours: a tensor whose memory another one that shares it has written to."""


@dataclass(frozen=True)
class Value:
    """A tensor at one moment; one that is changed in place becomes another value.

    Args:
        index: its place in `Graph.values`.
        shape: of all dimensions, the batch first where it has one.
        dtype: of its elements.
        kind: where it comes from; a `constant` is a tensor that the network holds and has not registered.
        name: the path of a parameter or buffer, else empty.
        storage: values with equal numbers share memory.
        bytes: of that memory.
        channels_last: whether channels lie closest together in memory, and not the columns of an image.
    """

    index: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    kind: Kind
    name: str
    storage: int
    bytes: int
    channels_last: bool

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return torch.Size(self.shape).numel()


@dataclass(frozen=True)
class Ref:
    """Stands for a value among the arguments of an operation."""

    index: int


@dataclass(frozen=True)
class Operation:
    """One ATen operation.

    Args:
        index: its place in `Graph.operations`, which is the order of execution.
        target: such as `aten.convolution.default`; `written` is explained at `WRITTEN`.
        arguments: all of them by their names in the operation's schema, defaults filled in, tensors as `Ref`.
        inputs: indices of the values it reads, each once, in the order of the arguments.
        outputs: indices of the values it makes.
        module: path of the innermost module that was being called.
        call: index in `Graph.calls` of that call, or -1 where the network's own forward was left.
    """

    index: int
    target: str
    arguments: Mapping[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    module: str
    call: int

    @property
    def name(self) -> str:
        """The operation without its library and overload: `convolution`; in place or not."""
        parts = self.target.split(".")
        return (parts[1] if len(parts) > 1 else parts[0]).rstrip("_")


@dataclass(frozen=True)
class Call:
    """One call of a module; a module that is used twice has two.

    Args:
        index: its place in `Graph.calls`.
        path: of the module; the network itself is the empty one.
        type: the name of its class.
        parent: index of the call within which it was made, -1 for that of the network.
        inputs, outputs: values of the tensors it was given and returned, in their order.
        start, stop: the operations made within it, as a range.
        leaf: whether no other module was called within it.
    """

    index: int
    path: str
    type: str
    parent: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    start: int
    stop: int
    leaf: bool


@dataclass(frozen=True)
class Graph:
    """A recorded forward pass.

    Args:
        operations, values, calls: in the order in which they came about.
        inputs, outputs: values that the network was given and returned.
        freed: for each storage that was given back during the pass, how many operations there were by then.
    """

    operations: tuple[Operation, ...]
    values: tuple[Value, ...]
    calls: tuple[Call, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    freed: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))

    def producer(self) -> Mapping[int, int]:
        """The operation that makes each value, by index; inputs, parameters and the like have none."""
        return {value: operation.index for operation in self.operations for value in operation.outputs}

    def readers(self) -> Mapping[int, tuple[int, ...]]:
        """The operations that read each value that is read at all."""
        found: dict[int, list[int]] = {}
        for operation in self.operations:
            for value in operation.inputs:
                found.setdefault(value, []).append(operation.index)
        return {value: tuple(readers) for value, readers in found.items()}


def record(model: nn.Module, shape: Sequence[int], *, batch: int = 1, training: bool = False) -> Graph:
    """Record what a network does with a batch of images, without computing it.

    Args:
        model: any module that takes one tensor; left as it was, modes included.
        shape: of one image, `(channels, height, width)`.
        batch: images in the batch.
        training: whether its modules are in training mode.

    Raises:
        UsageError: it has parameters without a shape, is compiled, asks for values of the image, fails on images of
            this size, or returns no tensor.
    """
    with ExitStack() as within:
        fake = within.enter_context(imagined(model, training=training))
        within.enter_context(torch.no_grad())
        image = fake.images(batch, shape)
        recorder = _Recorder(fake)
        recorder.given(image)
        within.enter_context(watched(model, recorder.enter, recorder.leave))
        within.enter_context(recorder)
        try:
            output = model(image)
        except Exception as error:
            raise refusal(model, shape, error, recorder.place, own=recorder.asks_its_own()) from error
        graph = recorder.graph(output)
    if not graph.outputs:
        raise UsageError(
            f"{type(model).__name__} returns {_told(output)}, in which no tensor is seen.",
            mend="Let `forward` return its tensors, alone or in a list, a mapping or a dataclass.",
        )
    return graph


@dataclass
class _Open:
    """A call that has not returned yet."""

    index: int
    path: str
    start: int
    inputs: tuple[int, ...]
    leaf: bool = True


@dataclass
class _Known:
    """The present value of a tensor that is alive."""

    alive: weakref.ref[Tensor]
    value: int
    seen: int  # how many writes to its memory its value allows for


class _Recorder(TorchDispatchMode):
    """Writes down operations and calls; holds no tensor, so that memory is freed when it would be."""

    def __init__(self, fake: Imagined) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self.values: list[Value] = []
        self.calls: list[Call | None] = []
        self.stack: list[_Open] = []
        self.freed: dict[int, int] = {}
        self._known: dict[int, _Known] = {}  # by the identity of the tensor
        self._storages = Storages(lambda number: self.freed.setdefault(number, len(self.operations)))
        self._writes: dict[int, list[int]] = {}  # by storage: the values that were written there
        self._asked: list[int] = []  # what the operation reads that is under way, or of it the mask alone
        self._named: dict[int, tuple[Kind, str]] = {}
        self._named |= {id(buffer): ("buffer", name) for name, buffer in fake.buffers.items()}
        self._named |= {id(parameter): ("parameter", name) for name, parameter in fake.parameters.items()}

    @property
    def place(self) -> str:
        """Path of the innermost module that is being called, or was when it failed."""
        return next((call.path for call in reversed(self.stack) if call.path), "")

    def asks_its_own(self) -> bool:
        """Whether the operation that failed asks for values on which the image has no influence."""
        hangs = {0}
        for operation in self.operations:
            if not hangs.isdisjoint(operation.inputs):
                hangs.update(operation.outputs)
        return bool(self._asked) and hangs.isdisjoint(self._asked)

    def given(self, image: Tensor) -> None:
        """Take the network's input as a value."""
        self._new(image, "input")

    def enter(self, path: str, module: nn.Module, inputs: Any) -> None:
        """A module is called."""
        if self.stack:
            self.stack[-1].leaf = False
        given = tuple(self.value_of(tensor) for tensor in tensors_in(inputs))
        self.stack.append(_Open(len(self.calls), path, len(self.operations), given))
        self.calls.append(None)

    def leave(self, module: nn.Module, output: Any) -> None:
        """A module returns."""
        call = self.stack.pop()
        parent = self.stack[-1].index if self.stack else -1
        outputs = tuple(self.value_of(tensor) for tensor in tensors_in(output))
        self.calls[call.index] = Call(
            call.index, call.path, type(module).__name__, parent, call.inputs, outputs,
            call.start, len(self.operations), call.leaf,
        )  # fmt: skip

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        arguments, inputs = self._bound(func, args, kwargs)  # what is read is read as it was before this operation
        self._asked = [value for value in inputs if self.values[value].dtype == torch.bool] or inputs
        result = func(*args, **kwargs)
        written = _written(func, args, kwargs)
        if len(written) == 1 and _returns_what_it_writes(func):
            result = written[0]  # a tensor that is not registered, and thus real, would come back as its fake twin
        tensors = [*tensors_in(result), *written]
        if not tensors:
            return result
        outputs = [self._output(tensor, new=any(tensor is other for other in written)) for tensor in _once(tensors)]
        self._add(str(func), arguments, inputs, outputs)
        for tensor in written:
            known = self._known[id(tensor)]
            storage = self.values[known.value].storage
            self._writes.setdefault(storage, []).append(known.value)
            known.seen = len(self._writes[storage])
        return result

    def value_of(self, tensor: Tensor) -> int:
        """The present value of a tensor; one never seen before is a parameter, a buffer or a constant."""
        known = self._known.get(id(tensor))
        if known is None:
            kind, name = self._named.get(id(tensor), ("constant", ""))
            return self._new(tensor, kind, name)
        writes = self._writes.get(self.values[known.value].storage, ())
        if known.seen < len(writes):  # memory that it shares was written to under another name
            inputs = (known.value, *(write for write in writes[known.seen :] if write != known.value))
            value = self._new(tensor, "result")
            self._add(WRITTEN, {}, inputs, [value])
            self._known[id(tensor)].seen = len(writes)
        return self._known[id(tensor)].value

    def graph(self, output: Any) -> Graph:
        outputs = tuple(self.value_of(tensor) for tensor in tensors_in(output))
        calls = tuple(call for call in self.calls if call is not None)
        freed = MappingProxyType(dict(self.freed))
        return Graph(tuple(self.operations), tuple(self.values), calls, (0,), outputs, freed)

    def _output(self, tensor: Tensor, *, new: bool) -> int:
        known = self._known.get(id(tensor))
        return self._new(tensor, "result") if new or known is None else known.value

    def _new(self, tensor: Tensor, kind: Kind, name: str = "") -> int:
        number, memory = self._storages.number(tensor), tensor.untyped_storage().nbytes()
        value = Value(
            len(self.values), tuple(tensor.shape), tensor.dtype, kind, name, number, memory, channels_last(tensor)
        )
        self.values.append(value)
        key = id(tensor)
        alive = weakref.ref(tensor, lambda _: self._known.pop(key, None))
        self._known[key] = _Known(alive, value.index, len(self._writes.get(number, ())))
        return value.index

    def _add(self, target: str, arguments: Mapping[str, Any], inputs: Sequence[int], outputs: Sequence[int]) -> None:
        path, call = (self.stack[-1].path, self.stack[-1].index) if self.stack else ("", -1)
        given, made = tuple(dict.fromkeys(inputs)), tuple(dict.fromkeys(outputs))
        arguments = MappingProxyType(dict(arguments))
        self.operations.append(Operation(len(self.operations), target, arguments, given, made, path, call))

    def _bound(self, func: Any, args: Any, kwargs: Any) -> tuple[dict[str, Any], list[int]]:
        """The arguments by name, with references for tensors, and the values that these are."""
        inputs: list[int] = []

        def referred(item: Any) -> Any:
            if isinstance(item, Tensor):
                inputs.append(self.value_of(item))
                return Ref(inputs[-1])
            if isinstance(item, (list, tuple)):
                return tuple(map(referred, item))
            return item

        bound: dict[str, Any] = {}
        for place, argument in enumerate(func._schema.arguments):
            if place < len(args) and not argument.kwarg_only:
                bound[argument.name] = referred(args[place])
            elif argument.name in kwargs:
                bound[argument.name] = referred(kwargs[argument.name])
            else:
                bound[argument.name] = argument.default_value
        return bound, inputs


def _told(output: Any) -> str:
    return "nothing" if output is None else f"an object of type {type(output).__name__}"


def _written(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The tensors that an operation writes to, by its schema."""
    found: list[Tensor] = []
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        given = args[place] if place < len(args) and not argument.kwarg_only else kwargs.get(argument.name)
        found += list(tensors_in(given))
    return found


def _returns_what_it_writes(func: Any) -> bool:
    returns = func._schema.returns
    return len(returns) == 1 and returns[0].alias_info is not None and returns[0].alias_info.is_write


def _once(tensors: Iterable[Tensor]) -> list[Tensor]:
    return list({id(tensor): tensor for tensor in tensors}.values())
