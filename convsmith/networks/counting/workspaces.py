"""What convolutions take for a moment on a processor, beyond what they read and make.

PyTorch hands them to oneDNN, which wants numbers in a layout of its own, in blocks of channels, and copies them. These
are the copies that PyTorch 2.14 was seen to make, on processors with AVX-512 and with AVX2; what they cannot tell, such
as the buffers of each thread, is small.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from convsmith.networks.recording.graph import Graph, Operation, Ref, Value
from convsmith.networks.recording.imagined import channels_last


def forward_workspace(operation: Operation, graph: Graph) -> int:
    """Bytes that a convolution in float32 takes beyond its result: first copies of what it reads, then of that.

    Where images lie channels last, it copies the weights alone. Blocks are filled up with zeros; an image of up to
    four channels is read as it is.
    """
    found = (operation.arguments.get(name) for name in ("input", "weight"))
    images, weight = (graph.values[argument.index] if isinstance(argument, Ref) else None for argument in found)
    if operation.name != "convolution" or images is None or weight is None or len(images.shape) != 4:
        return 0
    made = graph.values[operation.outputs[0]]
    groups, stride = operation.arguments["groups"], operation.arguments["stride"]
    if weight.dtype != torch.float32 or operation.arguments["transposed"]:
        return 0
    if not images.channels_last and _own_kernel(images.shape, weight.shape, stride, groups):
        return 0
    weights = 4 * weight.elements
    if images.channels_last:
        return weights
    read = _blocked(images, groups) if images.shape[1] > 4 or groups > 1 else 0
    result = _blocked(made, groups)
    return max(read + weights + result - 4 * made.elements, result)


def gradient_workspace(
    images: Tensor, weight: Tensor, stride: Sequence[int], dilation: Sequence[int], groups: int
) -> int:
    """Bytes that the gradient of a convolution's weights takes beyond the result.

    It is made in blocks, in bfloat16 from sums in float32, and then copied; where images lie channels last, weights are
    copied too. Groups then take blocks of 16 x 16 channels (8 x 8 without AVX-512), 256 times their size where they
    have one channel, but for 3x3, which has a kernel of its own; and bfloat16 takes none. Copies of images are left
    out: they are small where the peak is, at the end of a network.
    """
    full, last = weight.dtype == torch.float32, channels_last(images)
    if images.ndim != 4 or not (full or _block() == 16):
        return 0
    outputs, inputs, *kernel = weight.shape
    if full and not last and _own_kernel(images.shape, weight.shape, stride, groups):
        return 0
    if not last or groups == 1 or (inputs == 1 and outputs == groups and max(kernel) <= 3 and max(dilation) == 1):
        return weight.numel() * ((12 if full else 6) if last and groups == 1 else 4)
    block = _block()
    channels = math.ceil(inputs / block) * math.ceil(outputs / groups / block) * block**2
    weights = groups * channels * math.prod(kernel)
    positions = math.prod(images.shape[2:]) * (1 + 1 / math.prod(stride))
    return 4 * weights if full else 6 * weights + round(2 * block * groups * positions)


def _own_kernel(images: Sequence[int], weight: Sequence[int], stride: Sequence[int], groups: int) -> bool:
    """Whether PyTorch has a kernel of its own: for 1x1 on few images, as long as it may use one thread."""
    return groups == 1 == max(*weight[2:], *stride) == torch.get_num_threads() and images[0] < 16


def _block() -> int:
    return 16 if "AVX512" in torch.backends.cpu.get_cpu_capability() else 8


def _blocked(value: Value, groups: int) -> int:
    """Bytes of a map in blocks of channels, which are those of a group where it has several."""
    channels = value.shape[1]
    if 1 < groups < channels:
        return 4 * value.elements
    return 4 * value.elements // channels * math.ceil(channels / _block()) * _block()
