"""Winograd convolutions beside direct ones in float64, their products counted, and what they refuse."""

from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from convsmith.errors import UsageError
from convsmith.networks.recording.graph import record
from convsmith.networks.winograd import TRANSFORMS, WinogradConv2d, multiplications

MODES = ("zeros", "reflect", "replicate", "circular")


def off(result: torch.Tensor, conv: nn.Conv2d, x: torch.Tensor) -> float:
    """The largest error beside a direct convolution in float64, as a share of the largest result."""
    expected = conv.double()(x.double())
    conv.float()
    assert result.shape == expected.shape
    return ((result.double() - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("tile", [2, 4])
def test_the_matrices_convolve_exactly(tile):
    # In fractions: a tile of one dimension against three products for each result.
    matrices = TRANSFORMS[tile]
    values, kernel = [3, -1, 4, 1, -5, 9][: tile + 2], [2, 7, -1]
    image = [sum(a * b for a, b in zip(row, values, strict=True)) for row in matrices.image]
    weight = [
        sum(Fraction(a * b, matrices.divisor) for a, b in zip(row, kernel, strict=True)) for row in matrices.weight
    ]
    products = [a * b for a, b in zip(image, weight, strict=True)]
    results = [sum(a * b for a, b in zip(row, products, strict=True)) for row in matrices.result]
    assert results == [sum(values[at + k] * kernel[k] for k in range(3)) for at in range(tile)]


@settings(max_examples=40, deadline=None)
@given(
    tile=st.sampled_from([2, 4]),
    height=st.integers(3, 14),
    width=st.integers(3, 14),
    padding=st.integers(0, 2),
    mode=st.sampled_from(MODES),
    bias=st.booleans(),
)
def test_it_equals_direct_convolution_whatever_the_sides_and_padding(tile, height, width, padding, mode, bias):
    conv = nn.Conv2d(5, 7, 3, padding=padding, bias=bias, padding_mode=mode)
    layer = WinogradConv2d.of(conv, tile)
    x = torch.randn(2, 5, height, width)
    with torch.no_grad():
        for given_x in (x, x.to(memory_format=torch.channels_last)):
            assert off(layer(given_x), conv, x) < 1e-4
        assert torch.equal(layer.precomputed()(x), layer(x))


@pytest.mark.parametrize(("tile", "most"), [(2, 2e-6), (4, 4e-5)])
def test_errors_stay_small_where_many_channels_are_summed(tile, most):
    torch.manual_seed(0)
    conv, x = nn.Conv2d(256, 64, 3, padding=1), torch.randn(2, 256, 14, 14).relu()
    with torch.no_grad():
        assert off(WinogradConv2d.of(conv, tile)(x), conv, x) < most


@pytest.mark.parametrize(("tile", "saving"), [(2, 2.25), (4, 4.0)])
def test_products_are_counted_and_are_those_that_run(tile, saving):
    counted = multiplications(tile, 6, 10, 8, 12)
    assert counted.direct == 6 * 10 * 9 * 8 * 12
    assert counted.saving == saving
    graph = record(WinogradConv2d(6, 10, tile=tile), (6, 8, 12))
    (product,) = [operation for operation in graph.operations if operation.name == "bmm"]
    left, right = (graph.values[index].shape for index in product.inputs)
    assert left[0] * left[1] * left[2] * right[2] == counted.winograd


@pytest.mark.parametrize(("tile", "products"), [(2, 16 * 4 * 3), (4, 36 * 2 * 2)])
def test_tiles_that_hang_over_are_counted_whole(tile, products):
    assert multiplications(tile, 1, 1, 7, 5).winograd == products
    assert multiplications(tile, 1, 1, 7, 5).direct == 315


@pytest.mark.parametrize("tile", [2, 4])
def test_it_learns_as_the_direct_convolution_does(tile):
    torch.manual_seed(0)
    conv, layer = nn.Conv2d(3, 4, 3, padding=1), WinogradConv2d(3, 4, tile=tile)
    layer.load_state_dict(conv.state_dict())  # the same names, and nothing beside them
    x, aim = torch.randn(4, 3, 7, 9), torch.randn(4, 4, 7, 9)
    losses = []
    for model in (conv, layer):
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(20):
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), aim)
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    torch.testing.assert_close(layer.weight, conv.weight, rtol=1e-3, atol=1e-5)


def test_precomputed_is_as_the_layer_was_and_goes_through_its_state():
    layer, x = WinogradConv2d(3, 4), torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        before, fixed = layer(x), layer.precomputed()
        layer.weight.zero_()
        assert torch.equal(fixed(x), before)
        other = WinogradConv2d(3, 4).precomputed()
        other.load_state_dict(fixed.state_dict())
        assert torch.equal(other(x), before)
    assert list(fixed.parameters()) == []
    assert fixed.kernel.numel() == 4 * layer.weight.numel()


def test_in_bfloat16_it_is_as_close_as_the_direct_convolution():
    torch.manual_seed(0)
    conv, x = nn.Conv2d(32, 16, 3, padding=1).bfloat16(), torch.randn(1, 32, 12, 12).bfloat16()
    layer = WinogradConv2d.of(conv)
    with torch.no_grad():
        direct, ours = off(conv(x).float(), conv, x), off(layer(x).float(), conv, x)
        assert ours < 1.5 * direct
        with torch.autocast("cpu", torch.bfloat16):
            assert off(WinogradConv2d.of(conv.float()).precomputed()(x).float(), conv, x) < 1.5 * direct


def test_of_shares_the_weights():
    conv = nn.Conv2d(3, 4, 3, padding="same", bias=False)
    layer = WinogradConv2d.of(conv)
    assert layer.weight is conv.weight
    assert layer.bias is None
    assert layer.padding == 1


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 4, 5),
        nn.Conv2d(4, 4, 3, stride=2),
        nn.Conv2d(4, 4, 3, dilation=2),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 4, 3, padding=(1, 0)),
    ],
    ids=str,
)
def test_convolutions_without_a_winograd_form_are_refused(conv):
    with pytest.raises(UsageError, match=r"Conv2d\(4, 4.*no Winograd form.*3x3 convolutions of stride 1"):
        WinogradConv2d.of(conv)


def test_other_tiles_and_images_too_small_are_refused():
    with pytest.raises(UsageError, match=r"no tiles of 3x3.*Use 2 or 4"):
        WinogradConv2d(3, 4, tile=3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"does not fit into an image of 2x9 px padded by 0"):
        WinogradConv2d(3, 4, padding=0)(torch.zeros(1, 3, 2, 9))
