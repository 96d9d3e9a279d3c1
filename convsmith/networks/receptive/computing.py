"""What the results of operations that compute draw on: convolution, pooling, products, norms, point by point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np

from convsmith.networks.receptive.parts import COLUMNS, ROWS
from convsmith.networks.receptive.reading import Reading
from convsmith.networks.receptive.spread import (
    Spread,
    UnfollowedError,
    joined,
    mixes,
    permuted,
    picked,
    reduced,
    resized,
    slide,
)
from convsmith.networks.receptive.taps import cell_taps, resampling_taps, transposed_taps, window_taps
from convsmith.networks.recording.graph import Operation


def convolution(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """Convolution and its transpose, of any number of dimensions, groups and dilation."""
    arguments = operation.arguments
    spread = reading.subject(operation, "input")
    weights = reading.of(arguments["weight"])
    if weights is not None:  # made from the image
        if not weights.pooled() or weights.places:
            raise UnfollowedError("its weights differ between positions")
        reading.gates[operation.module] = None
    kernel = reading.shape(arguments["weight"])[2:]
    count = len(kernel)
    channels = len(spread.dims) - count - 1
    shape = reading.made(operation)
    if spread.placed(channels):
        if arguments["groups"] != 1:
            raise UnfollowedError("groups of channels that are positions")
        spread = reduced(spread, [channels], keep=True)
    for axis in range(count):
        dim = channels + 1 + axis
        stride, padding, dilation = (_each(arguments[name], axis) for name in ("stride", "padding", "dilation"))
        if arguments["transposed"]:
            taps = transposed_taps(shape[dim], kernel[axis], stride, padding, dilation)
        else:
            taps = window_taps(shape[dim], kernel[axis], stride, padding, dilation)
        spread = slide(spread, dim, taps)
    return [resized(spread, channels, shape[channels])]


def pooling(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """Maximum and average of windows."""
    arguments = operation.arguments
    spread = reading.subject(operation)
    kernel = arguments["kernel_size"]
    count = _rank(operation.name)
    shape = reading.made(operation)
    for axis in range(count):
        dim = len(shape) - count + axis
        size, padding = _each(kernel, axis), _each(arguments["padding"], axis)
        stride = _each(arguments["stride"], axis) if arguments["stride"] else size
        taps = window_taps(shape[dim], size, stride, padding, _each(arguments.get("dilation", 1), axis))
        # An average of the whole map is global pooling, whatever it is called; a maximum may be the last of many.
        all_of_it = shape[dim] == 1 and size == spread.shape[dim] > 1 and not padding and "avg" in operation.name
        spread = slide(spread, dim, replace(taps, pools=all_of_it))
    return [spread] * len(operation.outputs)


def adaptive_pooling(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """Pooling to a given size; its cells begin and end where torch's do."""
    spread = reading.subject(operation)
    shape = reading.made(operation)
    for dim in range(len(shape) - _rank(operation.name), len(shape)):
        spread = slide(spread, dim, cell_taps(spread.shape[dim], shape[dim]))
    return [spread] * len(operation.outputs)


def enlarging(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """Nearest, linear and cubic interpolation; taps whose weight is zero do not count."""
    arguments = operation.arguments
    spread = reading.subject(operation, "input")
    shape = reading.made(operation)
    count = _rank(operation.name)
    given = [value for name, value in arguments.items() if name.startswith("scale") and name != "scale_factors"]
    given = list(arguments["scale_factors"] or ()) if "scale_factors" in arguments else given
    for axis in range(count):
        dim = len(shape) - count + axis
        old, new = spread.shape[dim], shape[dim]
        scale = given[axis] if axis < len(given) and given[axis] else None
        step = 1 / Fraction(scale).limit_denominator(10_000) if scale else Fraction(old, new)
        corners = bool(arguments.get("align_corners", False))
        if corners:
            step = Fraction(old - 1, new - 1) if new > 1 else Fraction(0)
        spread = slide(spread, dim, resampling_taps(operation.name, new, step, corners=corners))
    return [spread]


def reducing(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """A sum, mean, maximum or norm along dimensions."""
    if "other" in operation.arguments:  # the larger of two
        return pointwise(reading, operation)
    spread = reading.subject(operation, "x")
    dims = operation.arguments.get("dim")
    dims = [dims] if isinstance(dims, int) else list(dims or range(len(spread.dims)))
    keep = len(reading.made(operation)) == len(spread.dims)
    return [reduced(spread, dims, keep=keep)] * len(operation.outputs)


def mixing(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """Each position gets something of all others along a dimension."""
    spread = reading.subject(operation)
    return [reduced(spread, [operation.arguments["dim"]], keep=True, mixing=True)]


def running(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """Each position gets something of those before it, along a dimension that is not of places."""
    spread = reading.subject(operation)
    if spread.moved(operation.arguments["dim"] % len(spread.dims)):
        raise UnfollowedError("positions one after the other")
    return [spread] * len(operation.outputs)


def product(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """A product of matrices, with what is added to it."""
    left, right, bias = (reading.of(operation.arguments.get(name)) for name in PRODUCTS[operation.name])
    shape = reading.made(operation)
    found = [] if bias is None else [bias]
    if left is not None:
        found.append(resized(reduced(left, [-1], keep=True), len(shape) - 1, shape[-1]))
    if right is not None:
        right = permuted(right, (1, 0)) if operation.name == "linear" else right
        found.append(resized(reduced(right, [-2], keep=True), len(right.dims) - 2, shape[-2]))
    return [joined(found, shape)]


def attention(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """Scaled dot-product attention: each query with all keys."""
    arguments = operation.arguments
    if arguments.get("is_causal"):
        raise UnfollowedError("each position sees those before it")
    shape = reading.made(operation)
    found = []
    for name in ("query", "key", "value"):
        spread = reading.of(arguments[name])
        if spread is not None:
            spread = reduced(spread, [-1] if name == "query" else [-1, -2], keep=True)
            found.append(resized(spread, len(shape) - 1, shape[-1]))
    mask = reading.of(arguments.get("attn_mask", arguments.get("attn_bias")))
    if mask is not None:
        found.append(resized(reduced(mask, [-1], keep=True), len(mask.dims) - 1, shape[-1]))
    return [joined(found, shape)]


def channel_norm(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """Layer norm and the like: point by point where it is over channels; else by statistics of all positions."""
    spread = reading.subject(operation, "input")
    dims = range(len(spread.dims) - len(operation.arguments["normalized_shape"]), len(spread.dims))
    if any(mixes(spread, dims, axis) for axis in (ROWS, COLUMNS)):
        reading.statistics[operation.module] = None
        return [spread]
    if any(spread.placed(dim) for dim in dims):  # each patch by itself
        spread = reduced(spread, dims, keep=True, mixing=True)
    return [spread]


def group_norm(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """Group norm, whose statistics are of all positions."""
    spread = reading.subject(operation, "input")
    if spread.places:
        reading.statistics[operation.module] = None
    return [spread]


def batch_norm(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """Batch norm: point by point with its running statistics; else, as in instance norm, by those of all positions."""
    return (
        group_norm(reading, operation) if operation.arguments.get("training") else [reading.subject(operation, "input")]
    )


def pointwise(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """The same at each position, lengths of 1 repeated; a product with what is the same for all positions is a gate."""
    shape = reading.made(operation)
    found = reading.images(operation)
    if operation.name in ("mul", "div") and len(found) == 2:
        left, right = found
        for local, gate in ((left, right), (right, left)) if operation.name == "mul" else ((left, right),):
            if local.places and not gate.places and gate.pooled():
                reading.gates[operation.module] = None
                return [joined([local], shape)] * len(operation.outputs)
    return [joined(found, shape)] * len(operation.outputs)


def copied(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """Numbers written over others."""
    source = reading.of(operation.arguments["src"])
    return [joined([source], reading.made(operation))] if source is not None else []


def halving(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """Gated linear unit: one half times a function of the other."""
    spread = reading.subject(operation)
    dim = operation.arguments["dim"] % len(spread.dims)
    half = spread.shape[dim] // 2
    halves = [picked(spread, dim, start + np.arange(half)) for start in (0, half)]
    return [joined(halves, reading.made(operation))]


def _each(value: Any, axis: int) -> int:
    if isinstance(value, int):
        return value
    return value[axis] if len(value) > 1 else value[0]


def _rank(name: str) -> int:
    """How many dimensions `max_pool2d_with_indices` and the like work on."""
    return next(int(before) for before, letter in pairwise(name) if letter == "d" and before.isdigit())


PRODUCTS = {
    "mm": ("self", "mat2", ""),
    "bmm": ("self", "mat2", ""),
    "addmm": ("mat1", "mat2", "self"),
    "baddbmm": ("batch1", "batch2", "self"),
    "linear": ("input", "weight", "bias"),
}
"""Left factor, right factor, and what is added, by their names in each product."""
