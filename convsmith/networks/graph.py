"""What a network computes, as a graph of ATen operations, recorded from one forward pass in which nothing is computed.

The pass runs on fake tensors, which have shapes and no data, so it costs a fraction of a second and no memory whatever
the size of the network or the image, and leaves parameters, buffers and random states as they were. Unlike
`torch.export`, it takes any Python code: what is recorded is what this network does with an image of this size. Where
the code asks for the values of the image, it cannot be said, and is refused with the reason.

Everything that is said of a network without training it is read from this graph: shapes, multiply-adds, memory,
receptive field, drawings, design rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode

from convsmith.errors import UsageError

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
    """

    index: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    kind: Kind
    name: str
    storage: int
    bytes: int

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
    """A recorded forward pass."""

    operations: tuple[Operation, ...]
    values: tuple[Value, ...]
    calls: tuple[Call, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

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
        UsageError: it has parameters without a shape, asks for values of the image, or fails on images of this size.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    if any(is_lazy(parameter) for parameter in model.parameters()):
        raise UsageError(
            f"{type(model).__name__} has lazy parameters, whose shapes only an image decides.",
            mend="Call it once with a batch of images, and then look at it.",
        )
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    with ExitStack() as within:
        within.enter_context(mode_of(model, training=training))
        within.enter_context(torch.no_grad())
        within.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        image = torch.zeros((batch, *shape), dtype=parameter.dtype if parameter is not None else None)
        recorder = _Recorder(model)
        recorder.given(image)
        within.enter_context(_calls(model, recorder))
        within.enter_context(recorder)
        try:
            output = model(image)
        except Exception as error:
            raise _refusal(model, (batch, *shape), error, recorder) from error
    return recorder.graph(output)


@contextmanager
def mode_of(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Hold a network in training or inference mode inside, and put each module's mode back at the end."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.train(training)
        yield
    finally:
        for module, mode in modes:
            module.training = mode


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
    """A tensor that was seen: held, so that its identity stays its own, with its present value."""

    tensor: Tensor
    value: int
    seen: int  # how many writes to its memory its value allows for


class _Recorder(TorchDispatchMode):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self.values: list[Value] = []
        self.calls: list[Call | None] = []
        self.stack: list[_Open] = []
        self._known: dict[int, _Known] = {}
        self._storages: dict[int, int] = {}
        self._held: list[Any] = []
        self._writes: dict[int, list[int]] = {}  # by storage: the values that were written there
        self._named: dict[int, tuple[Kind, str]] = {}
        for name, buffer in model.named_buffers():
            self._named[id(buffer)] = ("buffer", name)
        for name, parameter in model.named_parameters():
            self._named[id(parameter)] = ("parameter", name)

    def given(self, image: Tensor) -> None:
        """Take the network's input as a value."""
        self._new(image, "input")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        before = self._bound(func, args, kwargs)  # what is read is read as it was before this operation
        result = func(*args, **kwargs)
        tensors = list(_tensors(result))
        if not tensors:
            return result
        arguments, inputs = before
        written = [tensor for tensor in _written(func, args, kwargs) if any(tensor is other for other in tensors)]
        outputs = [self._output(tensor, new=any(tensor is other for other in written)) for tensor in tensors]
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
        outputs = tuple(self.value_of(tensor) for tensor in _tensors(output))
        calls = tuple(call for call in self.calls if call is not None)
        return Graph(tuple(self.operations), tuple(self.values), calls, (0,), outputs)

    def _output(self, tensor: Tensor, *, new: bool) -> int:
        known = self._known.get(id(tensor))
        return self._new(tensor, "result") if new or known is None else known.value

    def _new(self, tensor: Tensor, kind: Kind, name: str = "") -> int:
        storage = tensor.untyped_storage()
        number = self._storages.setdefault(storage._cdata, len(self._storages))
        self._held.append(storage)  # alive to the end, so that no address is used twice
        value = Value(len(self.values), tuple(tensor.shape), tensor.dtype, kind, name, number, storage.nbytes())
        self.values.append(value)
        self._known[id(tensor)] = _Known(tensor, value.index, len(self._writes.get(number, ())))
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


@contextmanager
def _calls(model: nn.Module, recorder: _Recorder) -> Iterator[None]:
    """Tell the recorder which module is being called, by hooks that go when it is over."""

    def enter(path: str, inputs: Any) -> None:
        if recorder.stack:
            recorder.stack[-1].leaf = False
        given = tuple(recorder.value_of(tensor) for tensor in _tensors(inputs))
        recorder.stack.append(_Open(len(recorder.calls), path, len(recorder.operations), given))
        recorder.calls.append(None)

    def leave(module: nn.Module, output: Any) -> None:
        call = recorder.stack.pop()
        parent = recorder.stack[-1].index if recorder.stack else -1
        outputs = tuple(recorder.value_of(tensor) for tensor in _tensors(output))
        recorder.calls[call.index] = Call(
            call.index, call.path, type(module).__name__, parent, call.inputs, outputs,
            call.start, len(recorder.operations), call.leaf,
        )  # fmt: skip

    with ExitStack() as hooks:
        for path, module in model.named_modules():
            before = module.register_forward_pre_hook(
                lambda module, args, kwargs, path=path: enter(path, (args, kwargs)), with_kwargs=True
            )
            after = module.register_forward_hook(lambda module, inputs, output: leave(module, output))
            hooks.callback(before.remove)
            hooks.callback(after.remove)
        yield


def _tensors(item: Any) -> Iterator[Tensor]:
    """All tensors in nested lists, tuples and mappings, in their order."""
    if isinstance(item, Tensor):
        yield item
    elif isinstance(item, Mapping):
        for part in item.values():
            yield from _tensors(part)
    elif isinstance(item, (list, tuple)):
        for part in item:
            yield from _tensors(part)


def _written(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The tensors that an operation writes to, by its schema."""
    found: list[Tensor] = []
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        given = args[place] if place < len(args) and not argument.kwarg_only else kwargs.get(argument.name)
        found += list(_tensors(given))
    return found


def _refusal(model: nn.Module, shape: Sequence[int], error: Exception, recorder: _Recorder) -> UsageError:
    """Why a pass failed, in one line, with the module in which it did."""
    where = next((call.path for call in reversed(recorder.stack) if call.path), "")
    place = f" in {where} ({type(model.get_submodule(where)).__name__})" if where else ""
    size = "x".join(map(str, shape[1:]))
    if "DataDependent" in type(error).__name__:
        return UsageError(
            f"{type(model).__name__} asks for values of the image{place}, so what it does is not known before it runs.",
            mend="Move what depends on values out of `forward`, or look at the part before it.",
        )
    reason = " ".join(str(error).split())[:300]
    return UsageError(
        f"{type(model).__name__} fails on images of {size}{place}: {reason}.",
        mend="Give the input size that it is made for: --input CxHxW.",
    )
