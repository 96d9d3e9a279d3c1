"""What a layer's options say of it before it is made: how many parameters it holds, and the shape that it leaves.

A formula takes those options of the layer that it needs, by their names, and gives the number or the shape that is
worked out by hand; the conformance suite holds every layer to its own. Shapes are of one image, `(channels, height,
width)`.
"""

from __future__ import annotations

import math

Side = int | tuple[int, int]
Shape = tuple[int, ...]


def no_parameters() -> int:
    """Layers that have nothing to learn."""
    return 0


def same_shape(shape: Shape) -> Shape:
    """Layers that work on each value, or on each channel."""
    return shape


# ---------------------------------------------------------------------------------------------------------- parameters


def conv_parameters(
    in_channels: int, out_channels: int, kernel_size: Side = 3, groups: int = 1, bias: bool = True
) -> int:
    """One kernel for each pair of an output channel and an input channel of its group, and one bias an output."""
    high, wide = _pair(kernel_size)
    return in_channels * out_channels // groups * high * wide + bias * out_channels


def linear_parameters(in_features: int, out_features: int, bias: bool = True) -> int:
    """One weight for each pair, and one bias an output."""
    return in_features * out_features + bias * out_features


def feature_norm_parameters(num_features: int, affine: bool = True) -> int:
    """A scale and a shift for each channel."""
    return 2 * num_features * affine


def channel_norm_parameters(num_channels: int, affine: bool = True) -> int:
    """A scale and a shift for each channel."""
    return 2 * num_channels * affine


def squeeze_excite_parameters(input_channels: int, squeeze_channels: int) -> int:
    """Two linear layers with bias (Hu et al. 2018, section 3.3)."""
    return 2 * input_channels * squeeze_channels + squeeze_channels + input_channels


def cbam_parameters(channels: int, rd_ratio: float = 1 / 16, spatial_kernel_size: int = 7) -> int:
    """Two linear layers without bias, a convolution of two maps to one, and its batch norm (Woo et al. 2018)."""
    narrow = max(1, int(channels * rd_ratio + 0.5))
    return 2 * channels * narrow + 2 * spatial_kernel_size**2 + 2


def eca_parameters(channels: int) -> int:
    """The kernel along the channels: the odd number nearest to `(log2(channels) + 1) / 2` from above, 3 at the least.

    The paper's equation 12 with gamma 2 and b 1, whose rounding is that of the authors' code.
    """
    size = int((math.log2(channels) + 1) / 2)
    return max(size + 1 - size % 2, 3)


# -------------------------------------------------------------------------------------------------------------- shapes


def window_side(side: int, kernel: int, stride: int, padding: int, dilation: int = 1, *, ceil: bool = False) -> int:
    """Positions at which a window of `kernel` values, `dilation` apart, fits along a side.

    With `ceil`, a last window may hang over the end, if it begins before it.
    """
    reach = side + 2 * padding - dilation * (kernel - 1) - 1
    if not ceil:
        return reach // stride + 1
    positions = -(-reach // stride) + 1
    return positions - ((positions - 1) * stride >= side + padding)


def conv_shape(
    shape: Shape,
    out_channels: int,
    kernel_size: Side = 3,
    stride: Side = 1,
    padding: Side | str = 0,
    dilation: Side = 1,
) -> Shape:
    """A convolution, whatever it pads with."""
    if padding == "same":
        return (out_channels, *shape[1:])
    given = (0, 0) if isinstance(padding, str) else _pair(padding)
    each = zip(shape[1:], _pair(kernel_size), _pair(stride), given, _pair(dilation), strict=True)
    return (out_channels, *(window_side(*numbers) for numbers in each))


def same_conv_shape(shape: Shape, out_channels: int, stride: Side = 1) -> Shape:
    """A convolution that pads so that stride alone shrinks: each side is divided, rounded up."""
    return (out_channels, *(-(-side // step) for side, step in zip(shape[1:], _pair(stride), strict=True)))


def transposed_shape(
    shape: Shape,
    out_channels: int,
    kernel_size: Side,
    stride: Side = 1,
    padding: Side = 0,
    output_padding: Side = 0,
    dilation: Side = 1,
) -> Shape:
    """What a convolution of these numbers would have made this shape from."""
    numbers = (_pair(item) for item in (kernel_size, stride, padding, output_padding, dilation))
    return (
        out_channels,
        *(
            (side - 1) * step - 2 * pad + apart * (kernel - 1) + more + 1
            for side, kernel, step, pad, more, apart in zip(shape[1:], *numbers, strict=True)
        ),
    )


def linear_shape(shape: Shape, out_features: int) -> Shape:
    """The last dimension becomes the outputs."""
    return (*shape[:-1], out_features)


def flat_shape(shape: Shape) -> Shape:
    """Channels and positions in one row."""
    return (math.prod(shape),)


def pool_shape(
    shape: Shape,
    kernel_size: Side,
    stride: Side | None = None,
    padding: Side = 0,
    dilation: Side = 1,
    ceil_mode: bool = False,
) -> Shape:
    """Windows, which touch and do not overlap where no stride is given."""
    steps = _pair(kernel_size if stride is None else stride)
    each = zip(shape[1:], _pair(kernel_size), steps, _pair(padding), _pair(dilation), strict=True)
    return (shape[0], *(window_side(*numbers, ceil=ceil_mode) for numbers in each))


def grid_shape(shape: Shape, output_size: Side) -> Shape:
    """A grid of so many cells whatever the image's size."""
    return (shape[0], *_pair(output_size))


def fraction_shape(shape: Shape, output_ratio: float) -> Shape:
    """Sides multiplied by a ratio, rounded down."""
    return (shape[0], *(int(side * output_ratio) for side in shape[1:]))


def blur_shape(shape: Shape, filt_size: int = 3, stride: int = 2) -> Shape:
    """A filter with so much padding that its stride alone shrinks the image, up to rounding."""
    padding = (stride - 1 + filt_size - 1) // 2
    return (shape[0], *(window_side(side, filt_size, stride, padding) for side in shape[1:]))


def _pair(value: Side) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value
