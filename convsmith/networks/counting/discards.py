"""What a downsampling throws away."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from convsmith.networks.recording.graph import Graph, Operation, Ref


def discarded(operation: Operation, graph: Graph) -> float | None:
    """The share of the numbers of an image that a downsampling does not read, or that have no room in its result.

    A max-pooling of 2x2 makes one number of four: 0.75. So does a 1x1 convolution of stride 2, which never looks at
    three quarters of the positions, however many channels it has. A strided convolution with more channels may discard
    nothing.

    Returns:
        in [0, 1), the greater of the two shares; None where an operation does not make the image smaller. A
        convolution or pooling of stride 1, which loses its border, does not, nor does a rearrangement of pixels. None,
        too, where it is not told: of a slice or a crop, and of means over maps that were flattened before.
    """
    source = operation.arguments.get("input", operation.arguments.get("self"))
    if not isinstance(source, Ref) or not operation.outputs:
        return None
    given, made = graph.values[source.index].shape, graph.values[operation.outputs[0]].shape
    read = _read(operation, graph, given, made)
    if read is None:
        return None
    return max(1 - read, 1 - prod(made) / prod(given), 0.0)


def _read(operation: Operation, graph: Graph, given: Sequence[int], made: Sequence[int]) -> float | None:
    """The share of positions that are read; None where it is no downsampling."""
    arguments = operation.arguments
    if operation.name == "convolution":
        weight = arguments["weight"]
        kernel = graph.values[weight.index].shape[2:]
        return None if arguments["transposed"] else _windows(operation, given, made, kernel)
    if operation.name.startswith(("_adaptive_avg_pool", "adaptive_")):
        return 1.0 if prod(made) < prod(given) else None
    if operation.name.startswith(("max_pool", "avg_pool")):
        return _windows(operation, given, made, arguments["kernel_size"])
    if operation.name.startswith(("upsample_", "_upsample_", "fractional_max_pool")):  # what is not read has no room
        return 1.0 if prod(made) < prod(given) else None
    if operation.name in {"mean", "sum", "amax"} and len(given) == 4:
        axes = {axis % 4 for axis in arguments.get("dim") or ()}
        return 1.0 if axes == {2, 3} and prod(given[2:]) > 1 else None
    return None


def _windows(operation: Operation, given: Sequence[int], made: Sequence[int], kernel: Sequence[int]) -> float | None:
    """The share of positions that are in a window."""
    axes = len(kernel)
    stride = operation.arguments["stride"] or kernel
    if max(stride) == 1:
        return None
    padding, dilation = operation.arguments["padding"], operation.arguments.get("dilation", (1,))
    share = 1.0
    for axis in range(axes):
        size, outputs = given[-axes:][axis], made[-axes:][axis]
        step, border, spread = (values[axis % len(values)] for values in (stride, padding, dilation))
        taps = range(0, kernel[axis] * spread, spread)
        positions = {place * step - border + tap for place in range(outputs) for tap in taps}
        share *= len(positions & set(range(size))) / size
    return share
