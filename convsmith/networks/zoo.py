"""The table of models, and the design that fits a task when nobody names one."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal, NamedTuple

from torch import nn

from convsmith.design import ActivationKind, ConvNet, NormKind, doubling
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
    head: Literal["average", "max", "flatten"] = "average",
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
    if classes > last.width:
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


PRESETS = {
    "convnet-tiny": _pyramid(32, 1, early=False),
    "convnet-small": _pyramid(32, 3, early=True),
    "convnet-medium": _pyramid(48, 3, early=True),
}


def _row(name: str, summary: str) -> Entry:
    return Entry(name, partial(build_design, PRESETS[name]), summary)


MODELS = Registry(
    "model",
    [
        Entry("convnet", convnet, "a pyramid whose width, depth, stages, block and head are options"),
        _row("convnet-tiny", "two residual blocks, for 8 px"),
        _row("convnet-small", "three residual blocks, for 28 px grey"),
        _row("convnet-medium", "three wider residual blocks, for 32 px colour"),
    ],
)
