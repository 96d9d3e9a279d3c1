"""Where a size mismatch comes from, and the values that mend it: read from what was recorded until a network failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from math import prod
from typing import Any

import torch
from torch import nn

from convsmith.errors import UsageError
from convsmith.networks.lines.sizes import Window, explain_sides, least_size, padding_for
from convsmith.networks.recording.graph import Operation, Ref, Value, _Recorder
from convsmith.networks.recording.imagined import ValuesNeeded, imagined, watched

SUMS = {"add", "sub", "mul", "div", "where", "maximum", "minimum"}
PRODUCTS = {"addmm": ("mat1", "mat2"), "mm": ("self", "mat2"), "bmm": ("self", "mat2")}
RESHAPES = {"view", "_unsafe_view", "t", "transpose", "permute", "expand", "clone"}
LARGEST = 1024
"""Pixels a side of the largest image that is proposed."""
TRIES = 12
"""Images that are tried out at the most before one is proposed; each takes a pass over fake tensors."""


@dataclass(frozen=True)
class Mismatch:
    """Why sizes do not fit.

    Args:
        place: path of the module that failed; empty where it is the network itself.
        says: where the mismatch comes from, with the sums, to stand in the middle of a sentence.
        mend: the values that would fit, as a sentence; empty where none is known.
    """

    place: str
    says: str
    mend: str


def size_error(model: nn.Module, shape: Sequence[int]) -> Mismatch | None:
    """Say why a network that failed on images of some shape did so; None where sizes are not what is wrong.

    Args:
        model: left as it was.
        shape: of one image, `(channels, height, width)`.
    """
    failed = _attempt(model, shape)
    cause = None if failed is None else _cause(failed, model)
    if failed is None or cause is None:
        return None
    mends = list(cause.mends)
    if cause.fits is not None:
        near = shape[-1] if not cause.smallest else 0
        sides = sorted(filter(cause.fits, range(1, LARGEST + 1)), key=lambda side: (abs(side - near), -side))
        good = (side for side in islice(sides, TRIES) if _attempt(model, (shape[0], side, side)) is None)
        if (side := next(good, None)) is not None:
            mends.append(f"images of {'at least ' if cause.smallest else ''}{side}x{side}")
    return Mismatch(failed.place, cause.says, f"Use {' or '.join(mends)}." if mends else "")


@contextmanager
def explaining_sizes(model: nn.Module, shape: Sequence[int]) -> Iterator[None]:
    """Within, a pass over fake images that fails for their size is refused with what `size_error` says of it."""
    try:
        yield
    except ValuesNeeded:
        raise
    except UsageError as error:
        found = size_error(model, shape)
        if found is None:
            raise
        where = f" in {found.place} ({type(model.get_submodule(found.place)).__name__})" if found.place else ""
        raise UsageError(
            f"{type(model).__name__} fails on images of {_by(shape)}{where}: {found.says}.",
            mend=found.mend or error.mend,
        ) from error


def windows_of(operation: Operation, values: Sequence[Value]) -> tuple[Window, Window] | None:
    """What an operation moves over rows and columns; None for one that moves nothing."""
    arguments = operation.arguments
    if operation.name == "convolution":
        kernel = values[arguments["weight"].index].shape[2:]
        kind, extra = ("transposed" if arguments["transposed"] else "convolution"), _both(arguments["output_padding"])
    elif operation.name.startswith(("max_pool2d", "avg_pool2d")):
        kernel, kind, extra = _both(arguments["kernel_size"]), "pooling", (0, 0)
    else:
        return None
    if len(kernel) != 2:
        return None
    stride = _both(arguments["stride"]) if arguments["stride"] else kernel
    padding, dilation = _both(arguments["padding"]), _both(arguments.get("dilation", (1, 1)))
    ceil = bool(arguments.get("ceil_mode", False))
    sides = zip(kernel, stride, padding, dilation, extra, strict=True)
    down, across = (Window(k, s, p, d, kind, ceil, e) for k, s, p, d, e in sides)
    return down, across


@dataclass(frozen=True)
class _Cause:
    """What does not fit, what would mend it, and which images of a side would fit (to be tried out)."""

    says: str
    mends: tuple[str, ...] = ()
    fits: Callable[[int], bool] | None = None
    smallest: bool = False


@dataclass(frozen=True)
class _Failed:
    """What was recorded until an operation failed; None is tried where a module failed before it did anything."""

    operations: Sequence[Operation]
    values: Sequence[Value]
    tried: Operation | None
    place: str
    inputs: tuple[int, ...]

    def shape(self, value: int) -> tuple[int, ...]:
        """Of a tensor, the batch first."""
        return self.values[value].shape

    def given(self, *names: str) -> int:
        """The value that the operation was given under the first of these names that it has."""
        assert self.tried is not None
        found = next(self.tried.arguments[name] for name in names if name in self.tried.arguments)
        assert isinstance(found, Ref)
        return found.index

    def maker(self, value: int) -> Operation | None:
        """The operation that made a value from others; None for images, parameters and the like."""
        return next((made for made in reversed(self.operations) if value in made.outputs and made.inputs), None)

    def windowed(self, value: int) -> tuple[Operation, tuple[Window, Window]] | None:
        """The last operation with a window on the way to a value, if nothing changed the size after it."""
        while (made := self.maker(value)) is not None:
            windows = windows_of(made, self.values)
            if windows is not None:
                return made, windows
            if self.shape(made.inputs[0])[-2:] != self.shape(value)[-2:]:
                return None
            value = made.inputs[0]
        return None

    def side_after(self, value: int) -> Callable[[int], int | None]:
        """How the height of maps follows from the image's; None where that is not known, or nothing is left."""
        steps: list[Callable[[int], int] | None] = []
        while (made := self.maker(value)) is not None:
            steps.append(_step(made, self.values))
            value = made.inputs[0]

        def after(side: int) -> int | None:
            for step in reversed(steps):
                side = 0 if step is None else step(side)
                if side < 1:
                    return None
            return side

        return after

    def source(self, value: int) -> str:
        """Where a value comes from, as ` (from layer1.conv2)`; empty where nothing names it."""
        made = self.maker(value)
        while made is not None and made.name in RESHAPES:
            made = self.maker(made.inputs[0])
        place = made.module if made is not None else ""
        return f" (from {_named(place)})" if place else ""


class _Trying(_Recorder):
    """Keeps what it was about to record."""

    tried: Operation | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        arguments, inputs = self._bound(func, args, kwargs or {})
        self.tried = Operation(len(self.operations), str(func), arguments, tuple(inputs), (), self.place, -1)
        result = super().__torch_dispatch__(func, types, args, kwargs)
        self.tried = None
        return result


def _attempt(model: nn.Module, shape: Sequence[int]) -> _Failed | None:
    """Run a network on one fake image; None where that succeeds."""
    with imagined(model, training=False) as fake, torch.no_grad():
        images = fake.images(1, shape)
        recorder = _Trying(fake)
        recorder.given(images)
        with watched(model, recorder.enter, recorder.leave), recorder:
            try:
                model(images)
            except Exception:  # whoever asks knows that it fails, and tells of the error itself
                inputs = recorder.stack[-1].inputs if recorder.stack else ()
                return _Failed(recorder.operations, recorder.values, recorder.tried, recorder.place, inputs)
    return None


def _cause(failed: _Failed, model: nn.Module) -> _Cause | None:
    if failed.tried is None:
        return _normalised(failed, model.get_submodule(failed.place))
    name = failed.tried.name
    if name == "convolution":
        return _channels(failed) or _too_small(failed)
    if name.startswith(("max_pool2d", "avg_pool2d")):
        return _too_small(failed)
    if name in PRODUCTS:
        return _features(failed)
    if name == "view":
        return _reshaped(failed)
    return _joined(failed) if name in SUMS or name == "cat" else None


def _channels(failed: _Failed) -> _Cause | None:
    assert failed.tried is not None
    maps, weight, arguments = failed.given("input"), failed.given("weight"), failed.tried.arguments
    if len(failed.shape(maps)) != len(failed.shape(weight)):
        return None
    sides = failed.shape(weight)
    taken, come = sides[0] if arguments["transposed"] else sides[1] * arguments["groups"], failed.shape(maps)[1]
    if taken == come:
        return None
    image = failed.values[maps].kind == "input"
    other = f"images of {taken} channels (--input {taken}xHxW)" if image else f"{taken} channels before it"
    where = "the images have" if image else f"what comes in{failed.source(maps)} has"
    return _Cause(f"it takes {taken} channels, but {where} {come}", (f"in_channels={come} here", other))


def _too_small(failed: _Failed) -> _Cause | None:
    assert failed.tried is not None
    maps, windows = failed.given("input", "self"), windows_of(failed.tried, failed.values)
    if windows is None:
        return None
    sizes = failed.shape(maps)[-2:]
    small = [(window, size) for window, size in zip(windows, sizes, strict=True) if window.after(size) < 1]
    if not small:
        return None
    window, size = small[0]
    after, least, padding = failed.side_after(maps), least_size(window), padding_for(window, size, 1)
    mends = (f"a kernel of {size}", *([f"a padding of {padding}"] if padding else []))
    says = f"the maps that come in{failed.source(maps)} are {_by(sizes)}: {explain_sides(windows, sizes)}"
    return _Cause(says, mends, lambda side: (after(side) or 0) >= least, smallest=True)


def _features(failed: _Failed) -> _Cause | None:
    """A matrix product, most often the linear layer that follows a flattening."""
    assert failed.tried is not None
    one, two = PRODUCTS[failed.tried.name]
    rows, weight = failed.given(one), failed.given(two)
    come, taken = failed.shape(rows)[-1], failed.shape(weight)[-2]
    if come == taken:
        return None
    maps = _flattened(failed, rows)
    if maps is None:
        return _Cause(
            f"it takes {taken:,} features, but {come:,} come in{failed.source(rows)}", (f"in_features={come} here",)
        )
    shape = failed.shape(maps)[1:]
    if come != prod(shape):  # the last dimension of maps
        return _Cause(
            f"it takes {taken:,} features, but maps of {_by(shape)} come in{failed.source(maps)}",
            ("`x.flatten(1)` before it", "`x.mean((2, 3))`"),
        )
    mends = [f"in_features={come} here"]
    mends += ["a global average pooling before the flattening"] if taken == shape[0] else []
    says = f"it takes {taken:,} features, but {_by(shape)} maps{failed.source(maps)}, flattened, are {come:,}"
    return _Cause(says, tuple(mends), _flat_sides(failed, maps, taken))


def _reshaped(failed: _Failed) -> _Cause | None:
    """`x.view(-1, 400)` of maps that are of another size."""
    assert failed.tried is not None
    value, size = failed.given("self"), failed.tried.arguments["size"]
    maps = _flattened(failed, value)
    if maps is None or len(size) != 2 or size[0] not in (-1, failed.shape(maps)[0]) or size[1] < 1:
        return None
    shape, taken = failed.shape(maps)[1:], size[1]
    says = f"{_by(shape)} maps{failed.source(maps)} are {prod(shape):,} numbers, which make no rows of {taken:,}"
    return _Cause(says, (f"{prod(shape)} in place of {taken}",), _flat_sides(failed, maps, taken))


def _flat_sides(failed: _Failed, maps: int, taken: int) -> Callable[[int], bool]:
    """Which images would leave so many numbers in these maps."""
    after, channels = failed.side_after(maps), failed.shape(maps)[1]
    return lambda side: channels * (after(side) or 0) ** 2 == taken


def _flattened(failed: _Failed, rows: int) -> int | None:
    """The maps that rows of features were made from by reshaping alone; None where there are none."""
    value = rows
    while len(failed.shape(value)) != 4:
        made = failed.maker(value)
        if made is None or made.name not in RESHAPES:
            return None
        value = made.inputs[0]
    return value


def _normalised(failed: _Failed, module: nn.Module) -> _Cause | None:
    """A norm, which refuses another number of channels before it does anything."""
    taken = getattr(module, "num_features", None) or getattr(module, "num_channels", None)
    if not isinstance(taken, int) or not failed.inputs or len(failed.shape(failed.inputs[0])) < 2:
        return None
    maps = failed.inputs[0]
    come = failed.shape(maps)[1]
    if come == taken:
        return None
    return _Cause(f"it is made for {taken} channels, but {come} come in{failed.source(maps)}", (f"{come} here",))


def _joined(failed: _Failed) -> _Cause | None:
    """Two branches that are added, or set side by side."""
    assert failed.tried is not None
    parts = [value for value in failed.tried.inputs if len(failed.shape(value)) == 4]
    other = next((part for part in parts[1:] if _clash(failed, parts[0], part)), None)
    if other is None:
        return None
    first = parts[0]
    ours, theirs = failed.shape(first), failed.shape(other)
    doing = "it joins" if failed.tried.name == "cat" else "it adds" if failed.tried.name == "add" else "it combines"
    says = f"{doing} {_by(ours[1:])}{failed.source(first)} and {_by(theirs[1:])}{failed.source(other)}"
    if ours[2:] == theirs[2:]:
        return _Cause(says, (f"a 1x1 convolution from {theirs[1]} to {ours[1]} channels for one of them",))
    mends = []
    for value, wanted in ((first, theirs), (other, ours)):
        found = failed.windowed(value)
        if found is None:
            continue
        made, windows = found
        size = failed.shape(made.inputs[0])[-2:]
        says += f"; {_by(failed.shape(value)[2:])} is {explain_sides(windows, size, unread=False)}"
        down, across = (padding_for(*each) for each in zip(windows, size, wanted[2:], strict=True))
        if down is not None and down == across:
            mends.append(f"a padding of {down} in {_named(made.module) or 'that convolution'}")
    one, two = failed.side_after(first), failed.side_after(other)
    return _Cause(says, tuple(mends), lambda side: one(side) is not None and one(side) == two(side))


def _clash(failed: _Failed, first: int, other: int) -> bool:
    assert failed.tried is not None
    pairs = list(zip(failed.shape(first), failed.shape(other), strict=True))
    if failed.tried.name == "cat":
        del pairs[int(failed.tried.arguments["dim"])]
        return any(ours != theirs for ours, theirs in pairs)
    return any(ours != theirs and 1 not in (ours, theirs) for ours, theirs in pairs)


def _step(operation: Operation, values: Sequence[Value]) -> Callable[[int], int] | None:
    """How an operation changes the height of maps; None where that is not known."""
    windows = windows_of(operation, values)
    if windows is not None:
        return windows[0].after
    given, made = values[operation.inputs[0]].shape, values[operation.outputs[0]].shape
    if len(given) != 4 or len(made) != 4:
        return None
    before, after = given[-2], made[-2]
    if before == after:
        return lambda side: side
    if operation.name.startswith("upsample") and after % before == 0:
        return lambda side: side * (after // before)
    if "pad" in operation.name:
        return lambda side: side + after - before
    return (lambda side: after) if "adaptive" in operation.name else None


def _both(sides: Sequence[int] | int) -> tuple[int, ...]:
    pair = tuple(sides) if isinstance(sides, Sequence) else (sides,)
    return pair * 2 if len(pair) == 1 else pair


def _by(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides))


def _named(path: str) -> str:
    """A module's path; one that begins with a number is called a layer."""
    return f"layer {path}" if path[:1].isdigit() else path
