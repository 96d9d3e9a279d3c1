"""The table of layers: what each is called, the module that it is, and what can be worked out of it by hand.

A layer that PyTorch, torchvision or timm has is pointed to, not written again; those of the last two are imported
when they are first used. Options have the names that the module's own constructor gives them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from torch import nn

from convsmith.networks.layers import formulas as by
from convsmith.registry import Entry, Registry


@dataclass(frozen=True)
class LayerKind(Entry):
    """A row of the table: beside what every row has, its formulas.

    Args:
        parameters: from the options that it names to how many numbers the layer learns.
        shape: from the shape of one input, and the options that it names, to the shape of its result.
    """

    parameters: Callable[..., int] = by.no_parameters
    shape: Callable[..., tuple[int, ...]] = by.same_shape


def layer_parameters(name: str, **options: Any) -> int:
    """How many parameters a layer of these options has, worked out without making it.

    Raises:
        UsageError: no such layer, or an option that it does not take.
    """
    formula = cast(LayerKind, LAYER_KINDS[name]).parameters
    return formula(**_needed(name, formula, options))


def layer_shape(name: str, shape: tuple[int, ...], **options: Any) -> tuple[int, ...]:
    """The shape that a layer of these options leaves of one input of this shape, worked out without making it.

    Raises:
        UsageError: no such layer, or an option that it does not take.
    """
    formula = cast(LayerKind, LAYER_KINDS[name]).shape
    return formula(shape, **_needed(name, formula, options))


def _needed(name: str, formula: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """Those of a layer's options, given or its constructor's defaults, that a formula asks for."""
    LAYER_KINDS.check(name, options)
    defaults = {
        key: parameter.default
        for key, parameter in inspect.signature(LAYER_KINDS[name].load()).parameters.items()
        if parameter.default is not parameter.empty
    }
    asked = inspect.signature(formula).parameters
    return {key: value for key, value in {**defaults, **options}.items() if key in asked}


def _conv(name: str, build: Callable[..., Any] | str, summary: str, source: str = "", **formulas: Any) -> LayerKind:
    return LayerKind(name, build, summary, source, ("convolution",), by.conv_parameters, **formulas)


def _activation(name: str, build: Callable[..., Any], summary: str, source: str = "") -> LayerKind:
    return LayerKind(name, build, summary, source, ("activation",))


def _pool(
    name: str, build: Callable[..., Any] | str, summary: str, source: str = "", shape: Any = by.pool_shape
) -> LayerKind:
    return LayerKind(name, build, summary, source, ("pooling",), shape=shape)


def _drop(name: str, build: Callable[..., Any] | str, summary: str, source: str) -> LayerKind:
    return LayerKind(name, build, summary, source, ("dropout", "random"))


LAYER_KINDS = Registry(
    "layer",
    [
        _conv(
            "conv",
            nn.Conv2d,
            "convolution; `padding` 0 is valid, `same` keeps the size at stride 1, `padding_mode` is zeros, reflect, "
            "replicate or circular",
            shape=by.conv_shape,
        ),
        _conv(
            "conv-same",
            "timm.layers:Conv2dSame",
            "convolution that pads so that stride alone shrinks, more after than before where it is uneven",
            "Abadi et al. 2015",
            shape=by.same_conv_shape,
        ),
        _conv(
            "conv-winograd",
            "convsmith.networks.winograd:WinogradConv2d",
            "3x3 convolution by fewer multiplications",
            "Lavin & Gray 2016",
            shape=partial(by.conv_shape, kernel_size=3),
        ),
        _conv(
            "transposed-conv",
            nn.ConvTranspose2d,
            "convolution backwards, which enlarges by its stride",
            "Zeiler et al. 2010; Dumoulin & Visin 2016, chapter 4",
            shape=by.transposed_shape,
        ),
        LayerKind(
            "linear",
            nn.Linear,
            "fully connected",
            parameters=by.linear_parameters,
            shape=by.linear_shape,
        ),
        LayerKind("flatten", nn.Flatten, "channels and positions as one vector", shape=by.flat_shape),
        LayerKind(
            "batch-norm",
            nn.BatchNorm2d,
            "each channel over the batch",
            "Ioffe & Szegedy 2015",
            ("norm",),
            by.feature_norm_parameters,
        ),
        LayerKind(
            "group-norm",
            nn.GroupNorm,
            "groups of channels of each image",
            "Wu & He 2018",
            ("norm",),
            by.channel_norm_parameters,
        ),
        LayerKind(
            "layer-norm",
            "timm.layers:LayerNorm2d",
            "all channels of each position",
            "Ba et al. 2016; Liu et al. 2022, section 2.6",
            ("norm",),
            by.channel_norm_parameters,
        ),
        LayerKind(
            "instance-norm",
            nn.InstanceNorm2d,
            "each channel of each image",
            "Ulyanov et al. 2016",
            ("norm",),
            by.feature_norm_parameters,
        ),
        _activation("relu", nn.ReLU, "max(0, x)", "Nair & Hinton 2010"),
        _activation("leaky-relu", nn.LeakyReLU, "x above zero, 0.01 x below", "Maas et al. 2013"),
        _activation("relu6", nn.ReLU6, "min(max(0, x), 6)", "Krizhevsky 2010"),
        _activation(
            "silu", nn.SiLU, "x sigmoid(x), also called swish", "Elfwing et al. 2018; Ramachandran et al. 2017"
        ),
        _activation("gelu", nn.GELU, "x times the normal distribution's share below x", "Hendrycks & Gimpel 2016"),
        _activation("hard-swish", nn.Hardswish, "x min(max(x + 3, 0), 6) / 6", "Howard et al. 2019, section 5.2"),
        _activation("tanh", nn.Tanh, "hyperbolic tangent, -1 to 1"),
        _activation("sigmoid", nn.Sigmoid, "1 / (1 + exp(-x)), 0 to 1"),
        _activation("hard-sigmoid", nn.Hardsigmoid, "min(max(x + 3, 0), 6) / 6", "Howard et al. 2019, section 5.2"),
        LayerKind("softmax", partial(nn.Softmax, dim=1), "exp(x) over its sum along the channels"),
        LayerKind(
            "log-softmax", partial(nn.LogSoftmax, dim=1), "the logarithm of that, which cross-entropy takes itself"
        ),
        _pool("max-pool", nn.MaxPool2d, "largest value of each window"),
        _pool("average-pool", nn.AvgPool2d, "mean of each window"),
        _pool("adaptive-max-pool", nn.AdaptiveMaxPool2d, "largest value of the cells of a grid", shape=by.grid_shape),
        _pool("adaptive-average-pool", nn.AdaptiveAvgPool2d, "mean of the cells of a grid", shape=by.grid_shape),
        _pool(
            "global-max-pool",
            partial(nn.AdaptiveMaxPool2d, 1),
            "largest value of each channel",
            shape=partial(by.grid_shape, output_size=1),
        ),
        _pool(
            "global-average-pool",
            partial(nn.AdaptiveAvgPool2d, 1),
            "mean of each channel",
            "Lin et al. 2014, section 3.2",
            shape=partial(by.grid_shape, output_size=1),
        ),
        LayerKind(
            "fractional-max-pool",
            "convsmith.networks.layers.pooling:FractionalMaxPool2d",
            "largest values of windows whose places are drawn, so that sides shrink by any ratio",
            "Graham 2014",
            ("pooling", "random"),
            shape=by.fraction_shape,
        ),
        LayerKind(
            "stochastic-pool",
            "convsmith.networks.layers.pooling:StochasticPool2d",
            "a value of each window drawn by its size; at inference the mean weighted so",
            "Zeiler & Fergus 2013",
            ("pooling", "random"),
            shape=by.pool_shape,
        ),
        _pool(
            "blur-pool",
            "timm.layers:BlurPool2d",
            "low-pass filter before the stride, so that a shifted image gives shifted maps",
            "Zhang 2019",
            shape=by.blur_shape,
        ),
        _drop("dropout", nn.Dropout, "values set to zero while training", "Srivastava et al. 2014"),
        _drop("spatial-dropout", nn.Dropout2d, "whole channels of an image set to zero", "Tompson et al. 2015"),
        _drop(
            "drop-block",
            "convsmith.networks.layers.dropping:DropBlock2d",
            "square blocks of a channel set to zero",
            "Ghiasi et al. 2018",
        ),
        _drop(
            "stochastic-depth",
            "torchvision.ops:StochasticDepth",
            "the whole branch of an image set to zero: put it at the end of a residual body, never on the skip",
            "Huang et al. 2016",
        ),
        LayerKind(
            "squeeze-excite",
            "torchvision.ops:SqueezeExcitation",
            "channels weighed by two linear layers on their means",
            "Hu et al. 2018",
            ("attention",),
            by.squeeze_excite_parameters,
        ),
        LayerKind(
            "cbam",
            "timm.layers.cbam:CbamModule",
            "channels weighed by their means and maxima, then positions by theirs",
            "Woo et al. 2018",
            ("attention",),
            by.cbam_parameters,
        ),
        LayerKind(
            "eca",
            "timm.layers:EcaModule",
            "channels weighed by a convolution along their means",
            "Wang et al. 2020",
            ("attention",),
            by.eca_parameters,
        ),
    ],
)
