"""The table of models, and the design that fits a task when nobody names one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

from torch import nn

from convsmith.design import ActivationKind, ConvNet, NormKind, doubling, parse
from convsmith.networks.convnet import build_design
from convsmith.registry import Entry, Registry


def convnet(
    in_channels: int,
    outputs: int,
    *,
    width: int = 16,
    depth: int = 1,
    stages: int = 3,
    first_stride: int = 1,
    block: str = "residual",
    head: Literal["average", "max", "both", "flatten", "class-maps"] = "average",
    dropout: float = 0.0,
    norm: NormKind = "batch",
    activation: ActivationKind = "relu",
    zero_gamma: bool = False,
) -> nn.Module:
    """Build the usual pyramid: each stage after the first halves the image and doubles the width.

    Args:
        in_channels: channels of the images.
        outputs: logits to give.
        width: channels of the stem and the first stage.
        depth: blocks in each stage.
        stages: how many.
        first_stride: what the first stage divides the sides by.
        block: a name from `design.BLOCKS`.
        head: how features become logits.
        dropout: rate before the last linear layer, 0 is off.
        norm, activation, zero_gamma: as in `design.ConvNet`.
    """
    network = doubling(
        width=width,
        depth=depth,
        stages=stages,
        first_stride=first_stride,
        block=block,
        head={"kind": head, "dropout": dropout},
        norm=norm,
        activation=activation,
        zero_gamma=zero_gamma,
    )
    return build_design(network, in_channels, outputs)


class Fitted(NamedTuple):
    """A design and, in one sentence, why it was chosen."""

    design: ConvNet
    reason: str


def fit_design(size: int, channels: int, images: int, classes: int) -> Fitted:
    """Choose a design by what is known of the images, without trying anything.

    Sides are halved to about 4 px. Full resolution is where convolutions cost most: at equal training time on a CPU, a
    wide network that sees it only in its stem beats a narrow one whose first stage works on it. Below 16 px there is
    nothing to save.

    Args:
        size: side of the images in px.
        channels: 1 or 3.
        images: how many there are to train on.
        classes: how many kinds.
    """
    halvings = max(1, round(math.log2(size / 4)))
    early = size >= 16
    rich = channels > 1 and images >= 10_000 and size < 48
    width = 48 if rich else 32
    network = _pyramid(width, halvings, early=early)
    last = network.stages[-1]
    if last.width is not None and classes > last.width:
        wide = last.model_copy(update={"width": max(last.width, min(512, 16 * math.ceil(classes / 16)))})
        network = network.model_copy(update={"stages": (*network.stages[:-1], wide)})
    end = f"{size} px to about {size / 2**halvings:.0f}"
    sides = f"{halvings} halvings bring {end}" if halvings > 1 else f"one halving brings {end}"
    where = "only the stem sees full resolution, where time goes" if early else "the first stage keeps full resolution"
    amount = f"width {width} to begin with suits {images:,} {'colour' if channels > 1 else 'grey'} images"
    return Fitted(network, f"{sides}; {where}; {amount} of {classes} classes")


def _pyramid(width: int, halvings: int, *, early: bool) -> ConvNet:
    """One residual block to a stage; `early` halves in the first stage already, after a stem of half its width."""
    if early:
        return doubling(width=width, depth=1, stages=halvings, first_stride=2, stem=width // 2)
    return doubling(width=width, depth=1, stages=halvings + 1)


def simple_design(side: int = 28) -> ConvNet:
    """Two convolutions of 3x3 without padding, a maximum, and one linear layer that reads all positions.

    With a grey image of 28 px and ten classes it has 30,790 parameters, 28,810 of them in the linear layer.

    Args:
        side: of the images in px; from 28 on the linear layer reads a grid of 12 x 12.
    """
    return _two_convolutions({"kind": "flatten", "grid": max(1, min(12, (side - 4) // 2))})


def mlp_design(side: int = 28, *, width: int = 256, depth: int = 2) -> ConvNet:
    """Linear layers alone, which know nothing of neighbouring pixels: what convolutions are to be compared with.

    Args:
        side: of the images in px; above 64 they are averaged down to 64 first, where one layer has millions of weights.
        width, depth: of the hidden layers.
    """
    head = {"kind": "flatten", "grid": min(64, side), "hidden": (width,) * depth}
    return parse({"stem": None, "stages": (), "head": head, "norm": "none"})


def simple(in_channels: int, outputs: int, *, side: int = 28) -> nn.Module:
    """Build `simple_design` for images of `side` px."""
    return build_design(simple_design(side), in_channels, outputs)


def mlp(in_channels: int, outputs: int, *, side: int = 28, width: int = 256, depth: int = 2) -> nn.Module:
    """Build `mlp_design` for images of `side` px."""
    return build_design(mlp_design(side, width=width, depth=depth), in_channels, outputs)


def _two_convolutions(head: Mapping[str, Any]) -> ConvNet:
    second = {"block": "plain", "width": 20, "stride": 2, "options": {"padding": 0, "pool": "max"}}
    return parse({"stem": {"width": 10, "padding": 0}, "stages": [second], "head": head, "bias": True})


def _separable(*widths: int) -> ConvNet:
    stages = [{"block": "separable", "width": width, "stride": 2} for width in widths]
    return parse({"stem": {"width": widths[0] // 2}, "stages": stages})


PRESETS = {
    "convnet-tiny": _pyramid(32, 1, early=False),
    "convnet-small": _pyramid(32, 3, early=True),
    "convnet-medium": _pyramid(48, 3, early=True),
    "simple-gap": _two_convolutions({"kind": "average"}),
    "lightweight": _separable(32, 64, 128),
}
SIZED = {"simple": simple_design, "mlp": mlp_design}
"""Presets that are made for one size of image, as functions of its side."""


def preset(name: str, side: int = 28) -> ConvNet | None:
    """The design behind a name of `MODELS`, for images of `side` px; None where its options make one."""
    return SIZED[name](side) if name in SIZED else PRESETS.get(name)


def _row(name: str, summary: str) -> Entry:
    return Entry(name, partial(build_design, PRESETS[name]), summary)


MODELS = Registry(
    "model",
    [
        Entry("convnet", convnet, "a pyramid whose width, depth, stages, block and head are options"),
        _row("convnet-tiny", "two residual blocks, for 8 px"),
        _row("convnet-small", "three residual blocks, for 28 px grey"),
        _row("convnet-medium", "three wider residual blocks, for 32 px colour"),
        Entry("simple", simple, "two convolutions and one linear layer, to learn from", tags=("sized",)),
        _row("simple-gap", "the same with global average pooling: a fourteenth of the parameters"),
        _row("lightweight", "three depthwise separable blocks"),
        Entry("mlp", mlp, "linear layers alone, to compare with", tags=("sized",)),
        Entry(
            "line",
            "convsmith.networks.lines.reading:line",
            "layers written as 'conv 16 k3 | relu | ...'",
            tags=("sized",),
        ),
    ],
)
