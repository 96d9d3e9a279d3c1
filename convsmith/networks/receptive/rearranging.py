"""What the results of operations draw on that put numbers elsewhere and compute nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from convsmith.networks.receptive.reading import Reading
from convsmith.networks.receptive.spread import (
    Spread,
    UnfollowedError,
    expanded,
    joined,
    permuted,
    picked,
    reshaped,
    resized,
    rolled,
    squeezed,
    surrounded,
    unfolded,
    unsqueezed,
)
from convsmith.networks.receptive.taps import window_taps
from convsmith.networks.recording.graph import Operation


def padding(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """Padding of any kind but circular; what is mirrored lies within the field that reaches past the border."""
    spread = reading.subject(operation)
    widths = operation.arguments.get("pad", operation.arguments.get("padding"))
    for place in range(len(widths) // 2):
        before, after = widths[2 * place : 2 * place + 2]
        dim = len(spread.dims) - 1 - place
        if before or after:
            length = spread.shape[dim] + before + after
            spread = picked(spread, dim, np.arange(length) - before)
    return [spread]


def slicing(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """Every position, or every second and so on, from one to another."""
    arguments = operation.arguments
    spread = reading.subject(operation)
    dim = arguments.get("dim", 0) % len(spread.dims)
    start, _, step = slice(arguments.get("start"), arguments.get("end"), arguments.get("step")).indices(
        spread.shape[dim]
    )
    return [picked(spread, dim, start + step * np.arange(reading.made(operation)[dim]))]


def selecting(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """One position along a dimension."""
    spread = reading.subject(operation)
    dim = operation.arguments["dim"] % len(spread.dims)
    place = operation.arguments["index"] % spread.shape[dim]
    return [squeezed(picked(spread, dim, np.array([place])), [dim])]


def splitting(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """Consecutive shares along a dimension, or each position by itself."""
    spread = reading.subject(operation)
    dim = operation.arguments["dim"] % len(spread.dims)
    made, start = [], 0
    for output in operation.outputs:
        alone = operation.name == "unbind"
        length = 1 if alone else reading.shape(output)[dim]
        share = picked(spread, dim, start + np.arange(length)) if length else spread
        made.append(squeezed(share, [dim]) if alone else share)
        start += length
    return made


def joining(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """One behind the other along a dimension that is there, or along a new one."""
    shape = reading.made(operation)
    dim = operation.arguments["dim"] % len(shape)
    stacked = operation.name == "stack"
    given = [argument for argument in operation.arguments["tensors"] if reading.shape(argument) != (0,)]
    lengths = [1 if stacked else reading.shape(argument)[dim] for argument in given]
    spreads = [(number, reading.of(argument)) for number, argument in enumerate(given)]
    found = [(number, unsqueezed(s, dim) if stacked else s) for number, s in spreads if s is not None]
    if any(spread.placed(dim) for _, spread in found):
        whole = [surrounded(s, dim, sum(lengths[:n]), sum(lengths[n + 1 :])) for n, s in found]
    else:
        whole = [resized(spread, dim, shape[dim]) for _, spread in found]
    return [joined(whole, shape)]


def viewing(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """The same numbers as a tensor of another shape."""
    spread, shape = reading.subject(operation), reading.made(operation)
    if math.prod(shape) != math.prod(spread.shape):  # bytes of a type of another size
        raise UnfollowedError("numbers read as those of another type")
    return [reshaped(spread, shape)]


def striding(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """Any reading of memory; followed where it changes nothing."""
    spread = reading.subject(operation)
    moved = any(spread.moved(dim) for dim, length in enumerate(spread.shape) if length > 1)
    if moved or reading.made(operation) != spread.shape:
        raise UnfollowedError("memory read in an order of its own")
    return [spread]


def permuting(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """Dimensions in another order."""
    arguments = operation.arguments
    spread = reading.subject(operation)
    order = list(range(len(spread.dims)))
    if operation.name == "permute":
        order = list(arguments["dims"])
    else:
        one, other = (0, -1) if operation.name in ("t", "numpy_T") else (arguments["dim0"], arguments["dim1"])
        order[one], order[other] = order[other], order[one]
    return [permuted(spread, order)]


def squeezing(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """Without dimensions of length 1."""
    spread = reading.subject(operation)
    given = operation.arguments.get("dim", tuple(range(len(spread.dims))))
    dims = [dim for dim in ([given] if isinstance(given, int) else given) if spread.shape[dim] == 1]
    return [squeezed(spread, dims)]


def unsqueezing(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """With a new dimension of length 1."""
    spread = reading.subject(operation)
    return [unsqueezed(spread, operation.arguments["dim"] % (len(spread.dims) + 1))]


def repeating(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """Repeated along dimensions of length 1."""
    return [expanded(reading.subject(operation), reading.made(operation))]


def tiling(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """Several copies one behind the other."""
    spread, shape = reading.subject(operation), reading.made(operation)
    repeats = operation.arguments["repeats"]
    while len(spread.dims) < len(repeats):
        spread = unsqueezed(spread, 0)
    wide = [size for pair in zip(repeats, spread.shape, strict=True) for size in pair]
    for place in range(len(repeats)):
        spread = unsqueezed(spread, 2 * place)
    return [reshaped(expanded(spread, wide), shape)]


def rolling(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """Positions that leave at one end and come in at the other."""
    arguments = operation.arguments
    spread = reading.subject(operation)
    if not arguments["dims"]:
        raise UnfollowedError("rolled through all dimensions at once")
    for shift, dim in zip(arguments["shifts"], arguments["dims"], strict=True):
        spread = rolled(spread, dim % len(spread.dims), shift)
    return [spread]


def flipping(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """Positions in reverse."""
    spread = reading.subject(operation)
    for dim in operation.arguments["dims"]:
        dim %= len(spread.dims)
        spread = picked(spread, dim, np.arange(spread.shape[dim])[::-1])
    return [spread]


def shuffling(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """Channels to places (pixel shuffle) and back."""
    spread = reading.subject(operation)
    *batch, channels, height, width = spread.shape
    n = len(batch)
    if operation.name == "pixel_shuffle":
        factor = operation.arguments["upscale_factor"]
        cut = reshaped(spread, (*batch, channels // factor**2, factor, factor, height, width))
        order = (*range(n), n, n + 3, n + 1, n + 4, n + 2)
    else:
        factor = operation.arguments["downscale_factor"]
        cut = reshaped(spread, (*batch, channels, height // factor, factor, width // factor, factor))
        order = (*range(n), n, n + 2, n + 4, n + 1, n + 3)
    return [reshaped(permuted(cut, order), reading.made(operation))]


def patching(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """All windows of a map, each as a column (im2col)."""
    arguments = operation.arguments
    spread = reading.subject(operation)
    dim = len(spread.dims) - 2
    for axis in range(2):
        size, stride, pad, dilation = (
            arguments[name][axis] for name in ("kernel_size", "stride", "padding", "dilation")
        )
        length = (spread.shape[dim + axis] + 2 * pad - dilation * (size - 1) - 1) // stride + 1
        spread = unfolded(spread, dim + axis, window_taps(length, size, stride, pad, dilation))
    order = (*range(dim), dim + 2, dim + 3, dim, dim + 1)
    return [reshaped(permuted(spread, order), reading.made(operation))]


def unfolding(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """Windows along one dimension, in a new last one."""
    arguments = operation.arguments
    spread = reading.subject(operation)
    dim = arguments["dimension"] % len(spread.dims)
    length = reading.made(operation)[dim]
    return [unfolded(spread, dim, window_taps(length, arguments["size"], arguments["step"], 0, 1))]


def picking(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """Positions by a list of their numbers, along one dimension that is not of places."""
    arguments = operation.arguments
    spread = reading.subject(operation)
    if operation.name == "index":
        places = [dim for dim, index in enumerate(arguments["indices"]) if index is not None]
        lists = [arguments["indices"][dim] for dim in places]
    else:
        places, lists = [arguments["dim"] % len(spread.dims)], [arguments["index"]]
    if any(not reading.free(index.index) for index in lists) or any(spread.moved(dim) for dim in places):
        raise UnfollowedError("positions picked by number")
    if len(lists) != 1 or len(reading.shape(lists[0])) != 1:
        raise UnfollowedError("positions picked by several numbers")
    return [resized(spread, places[0], reading.shape(lists[0])[0])]
