"""A network run on tensors that have shapes and no data, and the network as it was when that is over."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from convsmith.errors import UsageError
from convsmith.networks.recording.untouched import untouched


class ValuesNeeded(UsageError):
    """A network or a library that it uses needs values of the image, so what it does is not known before it runs."""


@dataclass(frozen=True)
class Imagined:
    """A network whose parameters and buffers are fake for now.

    Args:
        parameters, buffers: the fake ones by their names; one that has several names appears under its first.
        device: of the first parameter; that of a network on the meta device is the processor.
        dtype: of its first floating-point parameter.
    """

    parameters: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]
    device: torch.device
    dtype: torch.dtype

    def images(self, batch: int, shape: Sequence[int]) -> Tensor:
        """A fake batch of images."""
        return torch.zeros((batch, *shape), dtype=self.dtype, device=self.device)


@contextmanager
def imagined(model: nn.Module, *, training: bool) -> Iterator[Imagined]:
    """Inside, a network's tensors are fake, and all that is computed is shapes; afterwards it is as it was.

    Raises:
        UsageError: it has parameters without a shape, or is compiled.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    if any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers())):
        raise UsageError(
            f"{type(model).__name__} has lazy parameters, whose shapes only an image decides.",
            mend="Call it once with a batch of images, and then look at it.",
        )
    scripted = next((module for module in model.modules() if isinstance(module, torch.jit.ScriptModule)), None)
    if scripted is not None:
        raise UsageError(
            f"{type(model).__name__} is compiled by TorchScript, or a part of it is, inside of which nothing is seen.",
            mend="Give the Python network that it was made from.",
        )
    fakes = FakeTensorMode(allow_non_fake_inputs=True)
    parameters = {name: (tensor, _twin(tensor, fakes)) for name, tensor in model.named_parameters()}
    buffers = {name: (tensor, _twin(tensor, fakes)) for name, tensor in model.named_buffers()}
    twins = {id(tensor): twin for tensor, twin in (*parameters.values(), *buffers.values())}
    quiet = _unlogged()
    with untouched(model, training=training), quiet, _attention_in_steps(), fakes, _NothingReal(fakes):
        for module in model.modules():
            registered: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
            for tensors in registered:
                tensors |= {name: twins[id(tensor)] for name, tensor in tensors.items() if tensor is not None}
        first = next((twin for _, twin in parameters.values()), torch.zeros(()))
        floating = (twin.dtype for _, twin in parameters.values() if twin.is_floating_point())
        yield Imagined(
            {name: twin for name, (_, twin) in parameters.items()},
            {name: twin for name, (_, twin) in buffers.items()},
            first.device,
            next(floating, torch.get_default_dtype()),
        )


@contextmanager
def _unlogged() -> Iterator[None]:
    """PyTorch logs a failure on fake tensors with its traceback before it raises it."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


class Storages:
    """Numbers pieces of memory by the tensors that use them. An address may be used again; a number never is.

    Args:
        freed: called with the number of one that is given back.
    """

    def __init__(self, freed: Callable[[int], object] = lambda number: None) -> None:
        self._freed = freed
        self._numbers = count()
        self._alive: dict[int, tuple[int, weakref.ref[torch.UntypedStorage]]] = {}

    def number(self, tensor: Tensor) -> int:
        """The number of a tensor's memory."""
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address not in self._alive:
            number = next(self._numbers)

            def free(_: object) -> None:
                self._alive.pop(address, None)
                self._freed(number)

            self._alive[address] = number, weakref.ref(storage, free)
        return self._alive[address][0]


@contextmanager
def watched(
    model: nn.Module, enter: Callable[[str, nn.Module, Any], None], leave: Callable[[nn.Module, Any], None]
) -> Iterator[None]:
    """Call `enter(path, module, inputs)` before each call of a module and `leave(module, output)` after it."""
    with ExitStack() as hooks:
        for path, module in model.named_modules():
            before = module.register_forward_pre_hook(
                lambda module, args, kwargs, path=path: enter(path, module, (args, kwargs)), with_kwargs=True
            )
            after = module.register_forward_hook(lambda module, inputs, output: leave(module, output))
            hooks.callback(before.remove)
            hooks.callback(after.remove)
        yield


def tensors_in(item: Any) -> Iterator[Tensor]:
    """All tensors in nested lists, tuples, mappings, dataclasses and other plain objects, in their order."""
    yield from _tensors_in(item, set())


def _tensors_in(item: Any, open_: set[int]) -> Iterator[Tensor]:
    if isinstance(item, Tensor):
        yield item
        return
    parts = _parts(item)
    if not parts or id(item) in open_:  # one that holds itself
        return
    open_.add(id(item))
    for part in parts:
        yield from _tensors_in(part, open_)
    open_.discard(id(item))


def _parts(item: Any) -> list[Any]:
    """What an object holds in which there may be tensors; modules, classes and functions are none."""
    if item is None or isinstance(item, (str, bytes, int, float, nn.Module, type, FunctionType, ModuleType)):
        return []
    if isinstance(item, Mapping):
        return list(item.values())
    if isinstance(item, (list, tuple, set, frozenset)):
        return list(item)
    slots = [name for kind in type(item).__mro__ for name in _slots(kind)]
    return [*getattr(item, "__dict__", {}).values(), *(getattr(item, name) for name in slots if hasattr(item, name))]


def _slots(kind: type) -> tuple[str, ...]:
    names = vars(kind).get("__slots__", ())
    names = (names,) if isinstance(names, str) else tuple(names)
    return tuple(name for name in names if not name.startswith("__"))


def channels_last(tensor: Tensor) -> bool:
    """Whether the channels of `[N, C, H, W]` lie closest together in memory; also of a part of such a tensor."""
    return tensor.ndim == 4 and tensor.stride(1) == 1 != tensor.stride(3)


SIZE_MEND = "Give the input size that it is made for: --input CxHxW."
"""What to do where a network fails on images of a size."""


def refusal(
    model: nn.Module, shape: Sequence[int], error: Exception, path: str, mend: str = SIZE_MEND, *, own: bool = False
) -> UsageError:
    """Why a pass over fake images failed, in one line, with the module in which it did.

    Args:
        shape: of one image.
        path: of the innermost module that was being called.
        mend: what to do about it, unless it asks for values of the image.
        own: values that it asks for are those of a tensor of its own, which the image does not decide.
    """
    place = f" in {path} ({type(model.get_submodule(path)).__name__})" if path else ""
    if any(kind in type(error).__name__ for kind in ("DataDependent", "DynamicOutputShape")):
        whose = "a tensor of its own" if own else "the image"
        return ValuesNeeded(
            f"{type(model).__name__} asks for values of {whose}{place}, so what it does is not known before it runs.",
            mend="Pick by a list of numbers in place of a mask, or look at the part before it."
            if own
            else "Move what depends on values out of `forward`, or look at the part before it.",
        )
    reason = " ".join(str(error).split())[:300].rstrip(".")
    if any(word in reason for word in (".numpy()", "no fake impl")) or "Unsupported" in type(error).__name__:
        return ValuesNeeded(
            f"{type(model).__name__} hands images to code that needs their values{place}: {reason}.",
            mend="Look at the part before it; an operation of your own can be given a fake twin (torch.library).",
        )
    return UsageError(
        f"{type(model).__name__} fails on images of {'x'.join(map(str, shape))}{place}: {reason}.",
        mend=mend,
    )


def _twin(tensor: Tensor, fakes: Any) -> Tensor:
    """The fake twin of a tensor, which may be one itself; one on the meta device has it on the processor."""
    if fakes.is_our_fake(tensor):
        return tensor
    if not tensor.is_meta:
        twin = fakes.from_tensor(tensor)
        twin.grad = None
        return twin
    with fakes:
        twin = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
        return nn.Parameter(twin, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else twin


class _NothingReal(TorchDispatchMode):
    """Tensors that a network holds unregistered are fake too; PyTorch would compute with them where they are alone."""

    def __init__(self, fakes: Any) -> None:
        super().__init__()
        self._fakes = fakes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not torch.ops.aten.lift_fresh.default:  # of a constant in the code, whose value it may ask for
            args, kwargs = tree_map_only(Tensor, lambda tensor: _twin(tensor, self._fakes), (args, kwargs))
        return func(*args, **kwargs)


@contextmanager
def _attention_in_steps() -> Iterator[None]:
    """PyTorch's attention layers take their usual steps, not one fused operation whose inside is not seen."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
