"""A network's stages from image to head, for freezing and for rates by depth, seen in one forward pass.

A stage is what works at one resolution. Parameters first used while features have half the image's sides or more are
the `stem`; then come `stride-4`, `stride-8` and so on; what is used after the maps were pooled is the `head`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from convsmith.errors import UsageError
from convsmith.networks.counting.analysis import undisturbed, zeros
from convsmith.networks.head import find_head

PARTS = 4
"""Into how many parts a network without a pyramid is cut, as many as the usual pyramid has."""
ROOMY = 128
"""Pixels of a side at which a stride of 32 leaves more than one position, so that it is not taken for pooled."""
CHANNELS_FIRST = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
"""Modules whose maps are `[N, C, H, W]` for sure; those of a linear layer are `[N, H, W, C]`."""


@dataclass(frozen=True)
class Stage:
    """Part of a network that works at one resolution.

    Args:
        name: `stem`, `stride-4` and so on, `part-1` and so on where all is at one resolution, `head`.
        stride: what the image's sides are divided by at its end.
        modules: paths of the modules that own its parameters and buffers, in the order of their use.
        parameters: names of its parameters.
    """

    name: str
    stride: int
    modules: tuple[str, ...]
    parameters: tuple[str, ...]


def stages(model: nn.Module, shape: Sequence[int]) -> tuple[Stage, ...]:
    """Divide a network into stages, from the image to the head; each parameter is in one of them.

    A parameter belongs to the module that owns it, and that to the resolution of what it gives when it is first used.
    A network whose features all have one resolution, such as a vision transformer, is cut into four parts of about as
    many parameters, between blocks. What takes no part in a forward pass goes with what it is registered beside.

    Args:
        model: left as it was.
        shape: of one image, `(channels, height, width)`; a larger one is tried first where it is small.
    """
    seen = _watched(model, tuple(shape))
    order = _placed(model, seen)
    head = set(order[seen.pooled_from(order) :])
    with suppress(UsageError):  # several heads, or none that is linear: what follows the pooling is the head
        head.add(find_head(model, shape).path)
    body = [path for path in order if path not in head]
    strides = [max(2, seen.stride[path]) for path in body]
    # What the network itself owns, such as a position embedding, makes no maps; it goes with what comes first.
    if body and body[0] == "" and len(body) > 1:
        strides[0] = strides[1]
    if len(set(strides)) > 1:
        named = [("stem" if stride == 2 else f"stride-{stride}") for stride in strides]
    else:
        named = _parts(model, body)
    groups: dict[str, list[str]] = {}
    for path, name in zip(body, named, strict=True):
        groups.setdefault(name, []).append(path)
    if head:
        groups["head"] = [path for path in order if path in head]
    names = {id(parameter): name for name, parameter in model.named_parameters()}  # shared ones under their first name
    made, last = [], 1
    for name, paths in groups.items():
        last = max([last, *(seen.stride[path] for path in paths if name != "head")])
        owned = [parameter for path in paths for parameter in model.get_submodule(path).parameters(recurse=False)]
        taken = tuple(names.pop(id(parameter)) for parameter in owned if id(parameter) in names)
        made.append(Stage(name, last, tuple(paths), taken))
    return tuple(made)


@dataclass
class _Seen:
    """What one forward pass showed: when modules were first used, at which stride, and until when there were maps."""

    sides: tuple[int, int]
    now: int = 1
    clock: int = 0
    used: dict[str, int] = field(default_factory=dict)
    stride: dict[str, int] = field(default_factory=dict)
    mapped: int = 0

    def enter(self, path: str) -> None:
        if path not in self.used:
            self.clock += 1
            self.used[path], self.stride[path] = self.clock, self.now

    def leave(self, path: str, module: nn.Module, output: object) -> None:
        self.clock += 1
        if not isinstance(output, Tensor):
            return
        maps = _sides(module, output)
        if maps is not None and min(maps) > 1:
            stride = 2 ** round(math.log2(max(1.0, self.sides[0] / maps[0])))
            self.now = max(self.now, stride)
            if path not in self.used:
                self.stride[path] = self.now
        if path not in self.used:
            self.used[path] = self.clock
            self.stride.setdefault(path, self.now)
        if (output.ndim == 4 and max(output.shape[2:]) > 1) or (output.ndim == 3 and output.shape[1] > 1):
            self.mapped = self.clock

    def pooled_from(self, order: Sequence[str]) -> int:
        """The index in `order` of the first module that is used after the last maps, or tokens, were made."""
        return next((i for i, path in enumerate(order) if self.used[path] > self.mapped), len(order))


def _watched(model: nn.Module, shape: tuple[int, ...]) -> _Seen:
    larger = (shape[0], *(max(ROOMY, side) for side in shape[1:]))
    if larger != shape:
        try:
            return _run(model, larger)
        except (RuntimeError, AssertionError, ValueError):
            pass  # made for one size: a position embedding, or a linear layer on all positions
    return _run(model, shape)


def _run(model: nn.Module, shape: tuple[int, ...]) -> _Seen:
    seen = _Seen((shape[1], shape[2]))
    with undisturbed(model, training=False), torch.no_grad(), ExitStack() as hooks:
        for path, module in model.named_modules():
            if any(True for _ in module.children()):  # what a block owns itself counts from where the block begins
                hooks.callback(
                    module.register_forward_pre_hook(lambda module, inputs, path=path: seen.enter(path)).remove
                )
            hooks.callback(
                module.register_forward_hook(
                    lambda module, inputs, output, path=path: seen.leave(path, module, output)
                ).remove
            )
        model(zeros(model, (1, *shape)))
    return seen


def _sides(module: nn.Module, output: Tensor) -> tuple[int, int] | None:
    """Height and width of a module's maps, where it is known which of their dimensions these are."""
    if output.ndim != 4:
        return None
    if isinstance(module, CHANNELS_FIRST):
        return output.shape[2], output.shape[3]
    return (output.shape[1], output.shape[2]) if isinstance(module, nn.Linear) else None


def _placed(model: nn.Module, seen: _Seen) -> list[str]:
    """All modules that own parameters or buffers, by first use; the network's own come first."""
    owners: list[str] = []
    previous = ""
    for path, module in model.named_modules():
        if path not in seen.used:  # used without being called (attention's projection), or not at all
            above = path.rpartition(".")[0]
            while above and above not in seen.used:
                above = above.rpartition(".")[0]
            beside = above or previous
            seen.used[path], seen.stride[path] = seen.used.get(beside, 0), seen.stride.get(beside, 1)
        previous = path or previous
        if any(True for _ in _own(module)):
            owners.append(path)
    return sorted(owners, key=lambda path: seen.used[path])


def _own(module: nn.Module) -> Iterable[Tensor]:
    yield from module.parameters(recurse=False)
    yield from module.buffers(recurse=False)


def _parts(model: nn.Module, body: Sequence[str]) -> list[str]:
    """Cut modules, in the order of their use, into parts of about as many parameters, never within a block."""
    sizes = [
        sum(parameter.numel() for parameter in model.get_submodule(path).parameters(recurse=False)) for path in body
    ]
    blocks: dict[str, int] = {}
    for path, size in zip(body, sizes, strict=True):
        blocks[_block(path)] = blocks.get(_block(path), 0) + size
    total, before, part = max(1, sum(sizes)), 0, {}
    for block, size in blocks.items():
        part[block] = min(PARTS - 1, int(PARTS * (before + size / 2) / total))
        before += size
    there = sorted(set(part.values()))  # a large block may fill more than one part
    return [f"part-{1 + there.index(part[_block(path)])}" for path in body]


def _block(path: str) -> str:
    """The path up to the first word that ends in a number, which is where a network counts its blocks."""
    words = path.split(".")
    number = next((i for i, word in enumerate(words) if word[-1:].isdigit()), len(words) - 1)
    return ".".join(words[: number + 1])
