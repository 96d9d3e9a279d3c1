"""A network as a line of layers: `conv 3->64 k7 s2 p3 | bn | relu | maxpool 3 s2 p1 | gap | flatten | linear 10`.

Layers are parted by `|`, the words of one by spaces. What PyTorch leaves out can be left out here (stride 1, padding 0;
a pooling's stride is its kernel), and so can what follows from the layer before: `conv 64` and `linear 10` take
whatever comes in. A `linear` without a number gives as many logits as there are classes.

Sizes are followed while the line is read, so that what does not fit is refused with the sum that shows why.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from convsmith.errors import UsageError
from convsmith.networks.lines.sizes import Window, explain_sides
from convsmith.networks.lines.words import WIDTHS, Layer, Said, Shape, Unsettled
from convsmith.registry import suggestion

DEFAULT = "conv 16 k3 p1 | bn | relu | maxpool 2 | conv 32 k3 p1 | bn | relu | gap | flatten | linear"
PADDINGS: Mapping[str, Callable[[int], nn.Module]] = {
    "zeros": nn.ZeroPad2d,
    "reflect": nn.ReflectionPad2d,
    "replicate": nn.ReplicationPad2d,
    "circular": nn.CircularPad2d,
}


@dataclass(frozen=True)
class Line:
    """A line that was read.

    Args:
        layers: in their order.
        shape: what goes in.
    """

    layers: tuple[Layer, ...]
    shape: Shape

    def network(self) -> nn.Sequential:
        """The network, with PyTorch's own initialisation."""
        return nn.Sequential(OrderedDict((layer.name, layer.make()) for layer in self.layers))

    def sums(self) -> dict[str, str]:
        """How each layer with a window comes to the size that it leaves, by its name; only where sizes are known."""
        told: dict[str, str] = {}
        shape: Shape | None = self.shape
        for layer in self.layers:
            if layer.windows is not None and shape is not None and None not in shape[1:]:
                told[layer.name] = explain_sides(layer.windows, [side or 0 for side in shape[1:]])
            shape = None if shape is None else layer.after(shape)
        return told


@dataclass(frozen=True)
class Word:
    """A kind of layer.

    Args:
        read: from what was said and what comes in to the layer.
        takes: the words that may follow, for messages.
        summary: what it is.
    """

    read: Callable[[Said, Shape], Layer]
    takes: str
    summary: str


def looks_like_line(text: str) -> bool:
    """Whether a text is meant as a line of layers: it has a `|`, or begins with a layer's word and has more."""
    words = text.split()
    return "|" in text or (len(words) > 1 and words[0] in WORDS)


def read_line(text: str, shape: Sequence[int | None] = (None, None, None), *, outputs: int | None = None) -> Line:
    """Read a line of layers.

    Args:
        text: see the module's docstring.
        shape: of one image, `(channels, height, width)`; None is not known. Channels that are not known follow from
            the line where its first convolution says them.
        outputs: what a `linear` without a number gives.

    Raises:
        UsageError: a word that is not understood, with its place, or a layer that does not fit what comes in.
        Unsettled: a layer cannot be made without the size of the images, which is not known.
    """
    image: Shape = (shape[0] if shape[0] is not None else channels_of(text), *shape[1:])
    layers: list[Layer] = []
    made = image
    for number, part in enumerate(text.split("|"), 1):
        words = part.split()
        known = WORDS.get(words[0]) if words else None
        said = Said(number, " ".join(words), known.takes if known else "", image, tuple(layers), outputs)
        if not words:
            raise UsageError(f"Layer {number} of the line is empty.", mend="Take out one `|`, or write a layer there.")
        if known is None:
            raise said.wrong(0, "is no layer", suggestion(words[0], WORDS))
        layer = known.read(said, made)
        said.finish()
        layers.append(layer)
        after = layer.after(made)
        assert after is not None  # it was refused while it was read
        made = after
    return Line(tuple(layers), image)


def channels_of(text: str) -> int | None:
    """The channels that a line takes, by the `3->` of its first convolution; None where it does not say."""
    for part in text.split("|"):
        words = part.split()
        if words and words[0] in ("conv", "deconv"):
            said = next((found for word in words[1:] if (found := WIDTHS.fullmatch(word))), None)
            return int(said[1].replace(",", "")) if said and said[1] else None
    return None


def line(in_channels: int, outputs: int, *, layers: str = DEFAULT, side: int | None = None) -> nn.Module:
    """Build the network of a line of layers.

    Args:
        in_channels: channels of the images.
        outputs: logits to give, by a `linear` without a number.
        layers: see the module's docstring.
        side: of the images in px; needed where a `linear` after a `flatten` leaves out what comes in.
    """
    return read_line(layers, (in_channels, side, side), outputs=outputs).network()


def _windows(said: Said, kernel: tuple[int, int], stride: int | tuple[int, int] = 1, **options: Any) -> Any:
    """What moves over rows and over columns, by `k`, `s`, `p`, `d`, `o` and `same`."""
    sides = zip(
        kernel, said.pair("s", stride), said.pair("p", 0, least=0), said.pair("d", 1), said.pair("o", 0, least=0),
        strict=True,
    )  # fmt: skip
    made = [Window(k, s, p, d, extra=o, **options) for k, s, p, d, o in sides]
    if said.flag("same"):
        if any(window.span % 2 == 0 for window in made):
            raise said.misfit(
                "cannot pad an even span alike on both sides", mend="Use an odd kernel, or say a padding."
            )
        made = [Window(w.kernel, w.stride, w.span // 2, w.dilation, w.kind) for w in made]
    return made[0], made[1]


def _moving(said: Said, shape: Shape, make: Callable[[], nn.Module], windows: Any, out: int | None = None) -> Layer:
    """A layer with a window, of maps that it fits in; `out` channels, or as many as come in."""
    said.fits(windows, shape)

    def after(shape: Shape) -> Shape | None:
        sides = [None if size is None else window.after(size) for window, size in zip(windows, shape[1:], strict=True)]
        if any(size is not None and size < 1 for size in sides):
            return None
        return (shape[0] if out is None else out, *sides)

    return Layer(said.name, said.text, make, after, windows)


def _convolution(said: Said, shape: Shape) -> Layer:
    given, width = said.widths()
    channels = said.channels(given, shape)
    depthwise = said.word == "dwconv"
    width = channels if depthwise and width is None else width
    if width is None:
        raise said.misfit("does not say how many channels it leaves", mend=f"Write for example `{said.word} 64 k3`.")
    groups = channels if depthwise else said.pair("g", 1)[0]
    if channels % groups or width % groups:
        raise said.misfit(
            f"cannot part {channels} channels in and {width} out into {groups} groups",
            mend=f"Use a number that divides {math.gcd(channels, width)}.",
        )
    kernel = said.pair("k", 3)
    windows = _windows(said, kernel)
    mode, bias = said.flag(*PADDINGS) or "zeros", said.flag("nobias") is None
    make = partial(
        nn.Conv2d, channels, width, kernel, groups=groups, bias=bias, padding_mode=mode,
        **_options(windows, "stride", "padding", "dilation"),
    )  # fmt: skip
    return _moving(said, shape, make, windows, width)


def _transposed(said: Said, shape: Shape) -> Layer:
    given, width = said.widths()
    channels = said.channels(given, shape)
    if width is None:
        raise said.misfit("does not say how many channels it leaves", mend=f"Write for example `{said.word} 32 k2`.")
    kernel = said.pair("k", 2)
    windows = _windows(said, kernel, 2, kind="transposed")
    for window in windows:
        if window.extra >= max(window.stride, window.dilation):
            raise said.misfit(
                f"adds {window.extra} at the end, but less than its stride of {window.stride} can be added",
                mend=f"Use o{max(window.stride, window.dilation) - 1} at the most.",
            )
    options = _options(windows, "stride", "padding", "dilation")
    extra = tuple(window.extra for window in windows)
    bias = said.flag("nobias") is None
    make = partial(nn.ConvTranspose2d, channels, width, kernel, output_padding=extra, bias=bias, **options)
    return _moving(said, shape, make, windows, width)


def _pooling(said: Said, shape: Shape) -> Layer:
    _, side = said.widths()
    kernel = said.pair("k", side if side is not None else 2)
    windows = _windows(said, kernel, kernel, kind="pooling", ceil=said.flag("ceil") is not None)
    for window in windows:
        if window.padding > window.kernel // 2:
            raise said.misfit(
                f"pads by {window.padding}, but a pooling of {window.kernel} pads by half of it at the most",
                mend=f"Use p{window.kernel // 2}, or a layer `pad {window.padding}` before it.",
            )
    largest = said.word == "maxpool"
    if not largest and any(window.dilation > 1 for window in windows):
        raise said.misfit("cannot be dilated", mend="Leave out the word that begins with d.")
    options = _options(windows, "stride", "padding", *(["dilation"] if largest else []))
    make = partial(nn.MaxPool2d if largest else nn.AvgPool2d, kernel, ceil_mode=windows[0].ceil, **options)
    return _moving(said, shape, make, windows)


def _grid(said: Said, shape: Shape) -> Layer:
    """Pooling to so many positions whatever the size."""
    said.needs_maps(shape)
    side = 1 if said.word in ("gap", "gmp") else said.number_of("how many positions a side it leaves")
    kind = nn.AdaptiveMaxPool2d if said.word in ("gmp", "gridmax") else nn.AdaptiveAvgPool2d
    return Layer(said.name, said.text, partial(kind, side), lambda shape: (shape[0], side, side))


def _linear(said: Said, shape: Shape) -> Layer:
    given, width = said.widths()
    width = said.outputs if width is None else width
    if width is None:
        raise said.misfit("does not say how many values it gives", mend="Write for example `linear 10`.")
    if len(shape) != 1:
        maps = "x".join("?" if side is None else f"{side}" for side in shape)
        raise said.misfit(
            f"takes a row of features, but maps of {maps} come in", mend=f"Write `flatten | {said.text}` in its place."
        )
    features = shape[0]
    if features is None and given is None:
        raise Unsettled(
            f"Layer {said.number} of the line, `{said.text}`, cannot tell how many features come in without the size "
            "of the images.",
            mend=f"Give --input CxHxW, or write `linear IN->{width}`.",
        )
    if features is not None and given is not None and features != given:
        image = said.images(lambda seen: seen == (given,))
        raise said.misfit(
            f"takes {given:,} features, but {_flattened(said, features)} come in",
            mend=f"Write `linear {features}->{width}`{f', or give it{image[3:]}' if image else ''}.",
        )
    taken = features if features is not None else given
    assert taken is not None
    make = partial(nn.Linear, taken, width, bias=said.flag("nobias") is None)
    return Layer(said.name, said.text, make, lambda shape: (width,))


def _flattened(said: Said, features: int) -> str:
    """`1,568 (32x7x7)`: what was flattened, where a `flatten` stands right before."""
    shape: Shape = said.image
    for layer in said.before:
        former, shape = shape, layer.after(shape) or ()
        if len(former) == 3 and shape == (features,):
            return f"{features:,} ({'x'.join(map(str, former))})"
    return f"{features:,}"


def _norm(said: Said, shape: Shape) -> Layer:
    channels = shape[0]
    if channels is None:
        raise said.misfit("cannot tell how many channels come in", mend="Say them where they arise: `conv 3->64`.")
    if said.word == "bn":
        make = partial(nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d, channels)
        return Layer(said.name, said.text, make, lambda shape: shape)
    groups = channels if said.word == "in" else said.number_of("into how many groups it parts the channels")
    if channels % groups:
        raise said.misfit(
            f"cannot part {channels} channels into {groups} groups", mend=f"Use a number that divides {channels}."
        )
    return Layer(said.name, said.text, partial(nn.GroupNorm, groups, channels), lambda shape: shape)


def _flatten(said: Said, shape: Shape) -> Layer:
    def after(shape: Shape) -> Shape:
        return (None,) if None in shape else (math.prod(side or 0 for side in shape),)

    return Layer(said.name, said.text, nn.Flatten, after)


def _dropout(said: Said, shape: Shape) -> Layer:
    make = partial(nn.Dropout2d if said.word == "dropout2d" else nn.Dropout, said.share())
    return Layer(said.name, said.text, make, lambda shape: shape)


def _upsample(said: Said, shape: Shape) -> Layer:
    by = said.number_of("by how much")
    make = partial(nn.Upsample, scale_factor=by, mode=said.flag("nearest", "bilinear") or "nearest")
    return _resized(said, shape, make, lambda side: side * by)


def _pad(said: Said, shape: Shape) -> Layer:
    by = said.number_of("by how much")
    return _resized(said, shape, partial(PADDINGS[said.flag(*PADDINGS) or "zeros"], by), lambda side: side + 2 * by)


def _resized(said: Said, shape: Shape, make: Callable[[], nn.Module], grown: Callable[[int], int]) -> Layer:
    said.needs_maps(shape)

    def after(shape: Shape) -> Shape:
        return (shape[0], *(None if side is None else grown(side) for side in shape[1:]))

    return Layer(said.name, said.text, make, after)


def _plain(kind: Callable[[], nn.Module]) -> Callable[[Said, Shape], Layer]:
    return lambda said, shape: Layer(said.name, said.text, kind, lambda shape: shape)


def _options(windows: Sequence[Window], *names: str) -> dict[str, Any]:
    return {name: tuple(getattr(window, name) for window in windows) for name in names}


_PADS = "reflect, replicate, circular"
ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky-relu": nn.LeakyReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "hardswish": nn.Hardswish,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softmax": partial(nn.Softmax, 1),
    "log-softmax": partial(nn.LogSoftmax, 1),
}
WORDS: Mapping[str, Word] = {
    "conv": Word(_convolution, f"3->64 or 64, k3, s1, p1 or same, d1, g1, {_PADS}, nobias", "convolution"),
    "dwconv": Word(_convolution, f"k3, s1, p1 or same, d1, {_PADS}, nobias", "convolution with a kernel a channel"),
    "deconv": Word(_transposed, "64->32 or 32, k2, s2, p0, d1, o0, nobias", "transposed convolution"),
    "maxpool": Word(_pooling, "2 or k2, s2, p0, d1, ceil", "maximum of windows"),
    "avgpool": Word(_pooling, "2 or k2, s2, p0, ceil", "mean of windows"),
    "gap": Word(_grid, "", "global average pooling"),
    "gmp": Word(_grid, "", "global maximum pooling"),
    "gridavg": Word(_grid, "7", "mean of each cell of a grid"),
    "gridmax": Word(_grid, "7", "maximum of each cell of a grid"),
    "linear": Word(_linear, "2048->10 or 10, nobias", "fully connected"),
    "flatten": Word(_flatten, "", "positions and channels as one row of features"),
    "bn": Word(_norm, "", "batch normalisation"),
    "gn": Word(_norm, "32", "normalisation of channels in so many groups"),
    "in": Word(_norm, "", "normalisation of each channel of each image"),
    "dropout": Word(_dropout, "0.5", "values set to zero at random while training"),
    "dropout2d": Word(_dropout, "0.5", "channels set to zero at random while training"),
    "upsample": Word(_upsample, "2, nearest, bilinear", "rows and columns made more by a whole factor"),
    "pad": Word(_pad, f"1, {_PADS}", "rows and columns added on all sides"),
    "identity": Word(_plain(nn.Identity), "", "nothing"),
    **{name: Word(_plain(kind), "", "activation") for name, kind in ACTIVATIONS.items()},
}
"""The words that a layer begins with."""
