"""What convolutions and recurrent layers take on a processor, beyond what they read and make.

PyTorch hands them to oneDNN, which wants numbers in a layout of its own, in blocks of channels, and copies them; what
oneDNN does not take, PyTorch unfolds into columns of patches. These are the copies that PyTorch 2.14 was seen to make,
on processors with AVX-512 and with AVX2; what they cannot tell, such as the buffers of each thread, is small. LSTMs go
to oneDNN too, which keeps what their backward pass needs in one piece, of a size that a fake run does not show.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from convsmith.networks.recording.graph import Graph, Operation, Ref, Value
from convsmith.networks.recording.imagined import channels_last

_FEW = 20480
"""Numbers in a single image up to which PyTorch uses a kernel of its own (`use_mkldnn` in its Convolution.cpp)."""
_READ_AS_IS = 4
"""Channels below which images in float32 are read as they are for the gradient of weights."""


@dataclass(frozen=True)
class Convolution:
    """A call of a convolution, transposed or not.

    Args:
        images, weight, made: shapes of what it reads and makes.
        stride, dilation, groups, transposed: as PyTorch has them.
        dtype: of the weights.
        last: whether it works on channels that lie closest together.
        turned: whether weights do not lie so, where the images do.
        copied: bytes of copies of images for their order alone, before anything else.
    """

    images: tuple[int, ...]
    weight: tuple[int, ...]
    made: tuple[int, ...]
    stride: Sequence[int]
    dilation: Sequence[int]
    groups: int
    transposed: bool
    dtype: torch.dtype
    last: bool
    turned: bool
    copied: int = 0

    @classmethod
    def recorded(cls, operation: Operation, graph: Graph) -> Convolution | None:
        """Of an operation; None where it is none."""
        found = (operation.arguments.get(name) for name in ("input", "weight"))
        images, weight = (graph.values[argument.index] if isinstance(argument, Ref) else None for argument in found)
        if operation.name != "convolution" or images is None or weight is None:
            return None
        made, given = graph.values[operation.outputs[0]], operation.arguments
        return cls(
            images.shape, weight.shape, made.shape, given["stride"], given["dilation"], given["groups"],
            given["transposed"], weight.dtype, images.channels_last, _turned(weight.shape, weight.channels_last),
        )  # fmt: skip

    @classmethod
    def called(cls, images: Tensor, weight: Tensor, made: Tensor, rest: Sequence[Any]) -> Convolution:
        """Of its tensors, or of the gradient of what it makes; and of stride, padding, dilation and so on in order."""
        stride, _, dilation, transposed, _, groups = rest
        last = channels_last(images) or channels_last(weight)
        order = torch.channels_last if last else torch.contiguous_format
        copied = sum(_bytes(tensor) for tensor in (images, made) if not tensor.is_contiguous(memory_format=order))
        return cls(
            tuple(images.shape), tuple(weight.shape), tuple(made.shape), stride, dilation, groups,
            transposed, weight.dtype, last, _turned(weight.shape, channels_last(weight)), copied,
        )  # fmt: skip

    @property
    def wide(self) -> tuple[int, ...]:
        """The side that a stride makes larger: the images, or what a transposed convolution makes."""
        return self.made if self.transposed else self.images

    @property
    def narrow(self) -> tuple[int, ...]:
        """The other side."""
        return self.images if self.transposed else self.made

    @property
    def weights(self) -> int:
        """Bytes of the weights."""
        return self.size(self.weight)

    def size(self, shape: Sequence[int]) -> int:
        """Bytes of so many numbers."""
        return math.prod(shape) * self.dtype.itemsize


def recorded_workspace(operation: Operation, graph: Graph) -> int:
    """Bytes that an operation of a pass without gradients takes for a moment, beyond what it makes; 0 where unknown."""
    images = operation.arguments.get("input")
    if operation.name == "mkldnn_rnn_layer" and isinstance(images, Ref):
        return recurrent_workspace(graph.values[images.index], operation.arguments["hidden_size"])
    call = Convolution.recorded(operation, graph)
    return 0 if call is None else forward_workspace(call)


def forward_workspace(call: Convolution) -> int:
    """Bytes that a convolution takes beyond its result: first copies of what it reads, then of that.

    Where images lie channels last, it copies the weights alone. Blocks are filled up with zeros; images with fewer
    channels than a block has are read as they are.
    """
    if not call.dtype.is_floating_point:
        return 0
    if _own_kernel(call):
        group = (call.size(call.images) + _columns(call)) // call.groups  # one after the other, and all put together
        return call.copied + (max(call.size(call.made), group) if call.groups > 1 else _columns(call))
    if call.last:
        return call.copied + call.weights * (2 if call.turned else 1)
    taken = _widened(call) if call.transposed else _narrowed(call)
    return call.copied + taken - call.size(call.made)


def gradient_workspace(call: Convolution, images: bool, weights: bool) -> int:
    """Bytes that the gradients of a convolution take beyond the results: first that of its images, then its weights'.

    Both are made in blocks and then copied; in bfloat16 that of weights from sums in float32.

    Args:
        call: which may be told with the gradient in the place of what it makes.
        images, weights: whether their gradients are asked for.
    """
    if not call.dtype.is_floating_point:
        return 0
    kept = call.size(call.images) if images else 0
    if _own_kernel(call):
        columns = _columns(call) // (call.images[0] if call.transposed else 1)
        group = (call.size(call.images) + call.size(call.made) + columns) // call.groups
        return call.copied + (max(kept, group) if call.groups > 1 else columns)
    if call.last:
        return call.copied + (_last_gradient(call) if weights else 2 * call.weights)
    moments = [0]
    if images:
        moments.append(_narrowed(call) if call.transposed else _widened(call))
    if weights:
        blocks = _blocked_weights(call)
        moments += [kept + _copies(call) + blocks + _sums(call), kept + blocks + call.weights]
    return call.copied + max(moments) - kept - (call.weights if weights else 0)


def recurrent_kept(images: Tensor, hidden: int) -> int:
    """Bytes that a layer of an LSTM keeps for its backward pass, in one direction: the piece is an opaque one.

    States, what they pass on, gates and their gradients; by step and image, in rows filled up to cache lines. Found by
    the sizes that PyTorch 2.14 gives it, to which this is equal up to whole pages.

    Args:
        images: what the layer reads, `[steps, images, numbers]`.
        hidden: numbers in its state.
    """
    steps, batch, read = images.shape
    size = images.dtype.itemsize
    longest, own = max(read, hidden), (2 * size + 8)
    ends = 2 * size * _row(longest, size) + 16 * _row(longest, 4)
    inner = own * hidden + size * (_row(hidden, size) + _row(4 * hidden, size))
    return batch * ((steps + 1) * ends + own * _row(hidden, 4) + steps * inner)


def recurrent_workspace(images: Tensor | Value, hidden: int, gradient: Tensor | None = None) -> int:
    """Bytes that such a layer takes for a moment: copies of its weights, and the gates of all steps.

    Args:
        gradient: of what the layer makes, where it goes backwards; that is then brought into order, beside those of
            the last states, and in bfloat16 the gradients of weights are added up in float32.
    """
    steps, batch, read = images.shape
    size = images.dtype.itemsize
    taken = (steps * batch + read + hidden) * _row(4 * hidden, size) * size
    if gradient is not None:
        taken += 2 * batch * hidden * size + (0 if gradient.is_contiguous() else _bytes(gradient))
        taken += 0 if size == 4 else 4 * (read + hidden) * _row(4 * hidden, 4)
    return taken


def _row(numbers: int, size: int) -> int:
    """How long a row is filled up to: whole cache lines, and one more where rows would fall onto the same ones."""
    line = 64 // size
    filled = math.ceil(numbers / line) * line
    return filled + line if filled % 256 == 0 else filled


def _narrowed(call: Convolution) -> int:
    """The most bytes while the narrow side is made from the wide one, the result included."""
    made = call.size(call.narrow)
    if not _fits(call):
        return 2 * made
    read = _blocked(call, call.wide) if call.wide[1] >= _block() or call.groups > 1 else 0
    result = _blocked(call, call.narrow)
    return max(read + _blocked_weights(call) + result, result + made)


def _widened(call: Convolution) -> int:
    """The most bytes while the wide side is made from the narrow one, the result included."""
    made = call.size(call.wide)
    if not _fits(call):
        return 2 * made
    read = _blocked(call, call.narrow) + _blocked_weights(call)
    if max(call.stride) > 1 and call.groups == 1:  # made channels last, and brought into order in two steps
        return max(read + made, 3 * made)
    result = _blocked(call, call.wide)
    return max(read + result, result + made)


def _copies(call: Convolution) -> int:
    """Bytes of the copies of both sides from which the gradient of weights is made."""
    channels, whole = call.wide[1], call.dtype == torch.float32
    if not _fits(call, 8 if whole else _block()) or (
        _depthwise(call) and (max(call.weight[2:]) > 3 or max(call.dilation) > 1)
    ):
        return 0
    if call.groups == 1 and max(call.dilation) > 1 and _block() == 8:  # it unfolds an image
        return _columns(call)
    if call.groups == 1 and channels < (_READ_AS_IS if whole else _block()):
        return _blocked(call, call.narrow) if whole or call.narrow[1] >= _block() else 0
    return _blocked(call, call.wide, 8 if channels <= 8 else _block()) + _blocked(call, call.narrow)


def _last_gradient(call: Convolution) -> int:
    """Bytes for the gradient of weights where images lie channels last.

    Groups then take blocks of 16 x 16 channels (8 x 8 without AVX-512), 256 times their size where they have one
    channel, but for 3x3, which has a kernel of its own; and bfloat16 takes none.
    """
    if call.groups == 1 or (_depthwise(call) and max(call.weight[2:]) <= 3 and max(call.dilation) == 1):
        turned = call.weights if call.turned else 0
        return turned + max(2 * call.weights, _sums(call))
    outputs, inputs, *kernel = call.weight
    block = _block()
    channels = math.ceil(inputs / block) * math.ceil(outputs / call.groups / block) * block**2
    weights = call.groups * channels * math.prod(kernel)
    positions = math.prod(call.images[2:]) * (1 + 1 / math.prod(call.stride))
    return 4 * weights if call.dtype == torch.float32 else 6 * weights + round(2 * block * call.groups * positions)


def _sums(call: Convolution) -> int:
    """Bytes in which the gradient of weights in bfloat16 is added up, with what it reads of an image, turned.

    Where both sides have few channels, it unfolds an image instead.
    """
    if call.dtype == torch.float32 or _depthwise(call):
        return 0
    few = call.wide[1] < _block()
    if few and call.narrow[1] < _block() and call.groups == 1:
        return _columns(call) // call.images[0]
    turned = (call.size(call.wide) if few else _blocked(call, call.wide)) + _blocked(call, call.narrow)
    return 4 * _blocked_weights(call) // call.dtype.itemsize + (
        turned // call.images[0] if max(call.weight[2:]) > 1 else 0
    )


def _own_kernel(call: Convolution) -> bool:
    """Whether PyTorch uses a kernel of its own: for types that oneDNN does not know, and for little work.

    That is 1x1 on few images, as long as it may use one thread; and a small image alone.
    """
    if call.dtype != torch.float32:
        return call.dtype != torch.bfloat16 or _block() < 16
    if call.groups > 1 or min(call.weight[2:]) > 3:
        return False
    few = math.prod(call.images) <= _FEW and call.images[0] == 1
    one = max(*call.weight[2:], *call.stride, *call.dilation) == torch.get_num_threads() == 1
    return few or (one and call.images[0] < 16)


def _columns(call: Convolution) -> int:
    """Bytes of the patches of all images side by side, which 1x1 does without; dilated, of one image after another."""
    if max(*call.weight[2:], *call.stride) == 1:
        return 0
    turned = call.weights if call.last and call.turned else 0
    found = call.size(call.narrow) // call.narrow[1] * call.wide[1] * math.prod(call.weight[2:])
    return turned + (found // call.images[0] if max(call.dilation) > 1 else found)


def _block() -> int:
    return 16 if "AVX512" in torch.backends.cpu.get_cpu_capability() else 8


def _depthwise(call: Convolution) -> bool:
    return call.groups == call.images[1] == call.made[1] > 1


def _fits(call: Convolution, block: int = 4) -> bool:
    """Whether groups consist of whole blocks, or of one channel each."""
    whole = call.wide[1] % (block * call.groups) == 0 == call.narrow[1] % (block * call.groups)
    return call.groups == 1 or _depthwise(call) or whole


def _blocked(call: Convolution, shape: Sequence[int], block: int = 0) -> int:
    """Bytes of a map in blocks of channels, which several groups fill."""
    if call.groups > 1 and not _depthwise(call):
        return call.size(shape)
    channels, block = shape[1], block or _block()
    return call.size(shape) // channels * math.ceil(channels / block) * block


def _blocked_weights(call: Convolution) -> int:
    """Bytes of weights in blocks of channels of both sides; of few channels as they are."""
    if call.groups > 1 or call.wide[1] < _block():
        return call.weights
    sides = (math.ceil(channels / _block()) * _block() for channels in call.weight[:2])
    return call.size((*sides, *call.weight[2:]))


def _turned(shape: Sequence[int], last: bool) -> bool:
    """Whether weights are brought into the order of images that lie channels last; 1x1 has both."""
    return max(shape[2:]) > 1 and shape[1] > 1 and not last


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.dtype.itemsize
