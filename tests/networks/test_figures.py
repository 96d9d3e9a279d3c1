"""Figures that any book has: parameters, sizes and multiply-adds of single layers, stems and small networks."""

import pytest
import torch
from torch import nn

from convsmith.networks import count_macs, count_parameters
from convsmith.networks.counting.analysis import analyse


def residual(inputs: int, outputs: int, stride: int) -> nn.ModuleList:
    """The layers of a residual block, whose shortcut is a 1x1 convolution where the shape changes."""
    layers = [
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs),
        nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs),
    ]  # fmt: skip
    if inputs != outputs:
        layers += [nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)]
    return nn.ModuleList(layers)


def bottleneck(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width),
        nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width),
        nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width),
        nn.Conv2d(inputs, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width),
    )  # fmt: skip


def inverted(inputs: int, outputs: int, expansion: int) -> nn.Sequential:
    width = inputs * expansion
    return nn.Sequential(
        nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width),
        nn.Conv2d(width, width, 3, 1, 1, groups=width, bias=False), nn.BatchNorm2d(width),
        nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
    )  # fmt: skip


def separable(*, bias: bool) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(32, 32, 3, groups=32, bias=bias), nn.Conv2d(32, 64, 1, bias=bias))


@pytest.mark.parametrize(
    ("layer", "parameters"),
    [
        (nn.Conv2d(10, 20, 3), 1_820),
        (nn.Conv2d(8, 16, 3), 1_168),
        (nn.Conv2d(3, 32, 3), 896),
        (nn.Conv2d(1, 64, 3), 640),
        (nn.Conv2d(32, 64, 3, bias=False), 18_432),
        (nn.Conv2d(32, 64, 3), 18_496),
        (separable(bias=False), 288 + 2_048),
        (separable(bias=True), 2_432),
        (nn.Linear(2_880, 10), 28_810),
        (nn.Linear(20, 10), 210),
        (nn.BatchNorm2d(10), 20),
        (nn.Linear(784, 100), 78_500),
        (nn.Linear(784, 100, bias=False), 78_400),
        (nn.Linear(3 * 224 * 224, 64, bias=False), 9_633_792),
        (nn.Linear(224 * 224, 64, bias=False), 3_211_264),
        (nn.Sequential(nn.Conv2d(64, 16, 1), nn.Conv2d(16, 64, 3)), 1_040 + 9_280),
        (nn.Conv2d(64, 64, 3), 36_928),
        (residual(64, 64, 1), 73_984),
        (residual(64, 128, 2), 230_144),
        (bottleneck(64, 64), 75_008),
        (inverted(16, 24, 6), 5_136),
    ],
)
def test_parameters_of_layers_and_blocks(layer, parameters):
    assert count_parameters(layer).total == parameters


def digits_net(*end: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 10, 3), nn.BatchNorm2d(10), nn.Conv2d(10, 20, 3), nn.BatchNorm2d(20), nn.MaxPool2d(2), *end
    )


@pytest.mark.parametrize(
    ("net", "shape", "parameters"),
    [
        (digits_net(nn.Flatten(), nn.Linear(2_880, 10)), (1, 28, 28), 30_790),
        (digits_net(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20, 10)), (1, 28, 28), 2_190),
        (
            nn.Sequential(
                nn.Conv2d(3, 16, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.MaxPool2d(2),
                nn.Flatten(), nn.Linear(2_048, 128), nn.Linear(128, 10),
            ),
            (3, 32, 32),
            268_650,
        ),
    ],
)  # fmt: skip
def test_parameters_of_small_networks_are_those_of_their_layers(net, shape, parameters):
    analysis = analyse(net, shape)
    assert analysis.parameters.total == sum(layer.parameters for layer in analysis.layers) == parameters


def test_a_large_linear_layer_holds_nearly_all_parameters():
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(2_048, 128), nn.Linear(128, 10),
    )  # fmt: skip
    analysis = analyse(net, (3, 32, 32))
    largest = max(analysis.layers, key=lambda layer: layer.parameters)
    assert largest.path == "5"
    assert round(100 * largest.parameters / analysis.parameters.total, 1) == 97.6


@pytest.mark.parametrize(
    ("layers", "sides", "channels"),
    [
        ([nn.Conv2d(1, 1, 3), nn.MaxPool2d(2)], (28, 26, 13), 1),
        ([nn.Conv2d(1, 1, 3), nn.MaxPool2d(2)], (32, 30, 15), 1),
        ([nn.Conv2d(1, 1, 3, stride=2)], (32, 15), 1),
        ([nn.Conv2d(1, 1, 3, dilation=2)], (5, 1), 1),
    ],
)
def test_sizes_of_maps(layers, sides, channels):
    analysis = analyse(nn.Sequential(*layers), (channels, sides[0], sides[0]))
    assert [layer.output for layer in analysis.layers] == [(1, channels, side, side) for side in sides[1:]]


def test_flattening_four_by_four_by_eight_gives_128():
    (layer,) = analyse(nn.Sequential(nn.Flatten()), (8, 4, 4)).layers
    assert layer.output == (1, 128)


@pytest.mark.parametrize(
    ("convolutions", "parameters", "millions"),
    [
        ([(3, 64, 7, 2)], 9_408, 118.0),
        ([(3, 64, 3, 1), (64, 64, 3, 1), (64, 64, 3, 1)], 75_456, 3_786),
        ([(3, 32, 3, 2), (32, 32, 3, 1), (32, 64, 3, 1)], 28_512, 357.7),
    ],
)
def test_stems_cost_what_their_strides_make_of_them(convolutions, parameters, millions):
    with torch.device("meta"):
        stem = nn.Sequential(*(nn.Conv2d(i, o, k, s, k // 2, bias=False) for i, o, k, s in convolutions))
    assert count_parameters(stem).total == parameters
    macs = count_macs(stem, (3, 224, 224))
    assert macs is not None
    assert macs / 1e6 == pytest.approx(millions, rel=5e-4)


def test_a_stride_changes_compute_and_no_parameters():
    fine, coarse = (nn.Conv2d(8, 8, 3, stride, 1) for stride in (1, 2))
    assert count_parameters(fine) == count_parameters(coarse)
    assert count_macs(fine, (8, 16, 16)) == 4 * (count_macs(coarse, (8, 16, 16)) or 0)


@pytest.mark.parametrize(
    ("strides", "fields"), [((1, 1, 1), (3, 5, 7)), ((1, 2, 1), (3, 5, 9))], ids=["stride 1", "stride 2 in layer 2"]
)
def test_receptive_fields_of_three_convolutions(strides, fields):
    net = nn.Sequential(*(nn.Conv2d(1, 1, 3, stride) for stride in strides))
    layers = analyse(net, (1, 32, 32)).layers
    assert tuple(layer.field.height.size for layer in layers) == fields
    if strides == (1, 1, 1):
        (seven,) = analyse(nn.Sequential(nn.Conv2d(1, 1, 7)), (1, 32, 32)).layers
        assert seven.field == layers[-1].field


def test_the_mean_and_a_linear_layer_change_places_without_parameters():
    torch.manual_seed(0)
    linear, maps = nn.Linear(8, 3), torch.randn(2, 8, 4, 4)
    after = linear(maps.mean((2, 3)))
    before = linear(maps.movedim(1, -1)).mean((1, 2))
    assert torch.allclose(after, before, atol=1e-6)
    assert count_parameters(nn.AdaptiveAvgPool2d(1)).total == 0
