"""Rewrites that save: figures by hand, weights that come as near as the form allows, and advice that is measured."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from costs_counted import counted
from torch import nn
from torch.nn.utils import prune

from convsmith.errors import UsageError
from convsmith.networks.counting.analysis import count_parameters
from convsmith.networks.rewriting.narrowing import narrow
from convsmith.networks.rewriting.savings import (
    REWRITES,
    advise,
    bottleneck,
    candidates,
    grouped,
    pool_before,
    rewrite,
    separable,
    smaller_kernel,
)

SHAPE = (3, 16, 16)


def network(flat: bool = True) -> nn.Module:
    """7x7 on the image, then 3x3, 5x5 and depthwise, and linear layers on flattened maps or on their means."""
    torch.manual_seed(0)
    maps = nn.AdaptiveAvgPool2d(2 if flat else 1)
    return nn.Sequential(
        nn.Conv2d(3, 16, 7, 2, 3), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 32, 5, padding=2), nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.ReLU(),
        maps, nn.Flatten(), nn.Dropout(0.1), nn.Linear(128 if flat else 32, 24), nn.ReLU(), nn.Linear(24, 5),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("form", "layer", "before", "after"),
    [
        (separable, nn.Conv2d(32, 64, 3, bias=False), 18_432, 2_336),
        (separable, nn.Conv2d(32, 64, 3), 18_496, 2_432),
        (bottleneck, nn.Conv2d(64, 64, 3), 36_928, 10_320),
        (grouped, nn.Conv2d(64, 64, 3, bias=False), 36_864, 9_216),
        (smaller_kernel, nn.Conv2d(3, 64, 7, 2, 3, bias=False), 9_408, 1_728),
        (pool_before, nn.Linear(2_880, 10), 28_810, 210),
    ],
)
def test_parameters_are_those_worked_out_by_hand(form: Any, layer: nn.Module, before: int, after: int):
    new = form(layer, 144)
    assert (count_parameters(layer).total, count_parameters(new).total) == (before, after)


def low_rank(rank: int) -> nn.Conv2d:
    """A strided convolution that looks at `rank` mixtures of its channels."""
    layer = nn.Conv2d(8, 6, 3, 2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.einsum("orhw,ri->oihw", torch.randn(6, rank, 3, 3), torch.randn(rank, 8)))
    return layer


def rank_one() -> nn.Conv2d:
    """A convolution with one kernel for each channel that comes, times a factor for each that leaves."""
    layer = nn.Conv2d(8, 6, 5, padding=2, dilation=1)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(6, 8, 1, 1) * torch.randn(1, 8, 5, 5))
    return layer


def blocks() -> nn.Conv2d:
    """A convolution whose channels see those of their own quarter alone."""
    layer = nn.Conv2d(8, 12, 3, padding=1)
    with torch.no_grad():
        layer.weight.mul_(torch.block_diag(*[torch.ones(3, 2)] * 4)[:, :, None, None])
    return layer


def middle() -> nn.Conv2d:
    """A spread 7x7 convolution whose outer weights are zero."""
    layer = nn.Conv2d(8, 8, 7, padding=6, dilation=2, groups=2)
    with torch.no_grad():
        layer.weight.mul_(nn.functional.pad(torch.ones(3, 3), (2, 2, 2, 2)))
    return layer


@pytest.mark.parametrize(
    ("form", "layer"),
    [(separable, rank_one()), (bottleneck, low_rank(2)), (grouped, blocks()), (smaller_kernel, middle())],
)
def test_a_layer_whose_weights_have_the_form_already_answers_as_before(form: Any, layer: nn.Conv2d):
    image = torch.randn(2, 8, 9, 9)
    torch.testing.assert_close(form(layer)(image), layer(image), rtol=1e-4, atol=1e-5)


def test_pooling_before_a_linear_layer_answers_as_before_where_maps_are_even():
    layer = nn.Linear(48, 5)
    maps = torch.randn(3, 12, 1, 1).expand(-1, -1, 2, 2).flatten(1)
    torch.testing.assert_close(pool_before(layer, 4)(maps), layer(maps))  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("separable", ["6", "3"]),
        ("bottleneck", ["6", "3"]),
        ("grouped", ["6", "3"]),
        ("smaller-kernel", ["6"]),
        ("pool-before-linear", ["12"]),
    ],
)
def test_what_a_rewrite_saves_is_known_layer_by_layer_and_the_image_is_read_as_before(name: str, paths: list[str]):
    model = network()
    saved = candidates(model, SHAPE, name)
    assert list(saved) == paths  # those that save most come first
    changed = rewrite(model, SHAPE, name, layers=1)
    assert count_parameters(model).total - count_parameters(changed).total == saved[paths[0]]
    assert changed(torch.rand(2, *SHAPE)).shape == (2, 5)


def test_every_rewrite_is_among_these_cases():
    assert set(REWRITES) == {"separable", "bottleneck", "grouped", "smaller-kernel", "pool-before-linear"}


def test_all_advice_saves_what_it_says():
    model = network()
    advice = advise(model, SHAPE)
    assert {each.rewrite for each in advice} == {*REWRITES, "narrow"}
    assert [each.difference.parameters for each in advice] == sorted(each.difference.parameters for each in advice)
    before = counted(network(), SHAPE)
    for each in advice:
        assert each.difference.parameters < 0
        assert (each.difference.before.parameters, each.difference.before.macs, each.difference.before.memory) == before
        if each.rewrite != "narrow":
            after = each.difference.after
            rebuilt = rewrite(model, SHAPE, each.rewrite, layers=each.layers)
            assert (after.parameters, after.macs, after.memory) == counted(rebuilt, SHAPE)


def test_nothing_is_advised_where_nothing_can_be_saved():
    assert advise(nn.Sequential(nn.Flatten(), nn.Linear(768, 5)), SHAPE) == ()
    assert "pool-before-linear" not in {each.rewrite for each in advise(network(flat=False), SHAPE)}


def test_a_rewrite_refuses_layers_for_which_it_saves_nothing():
    with pytest.raises(UsageError, match=r"'0' is no layer for which 'separable' saves.*Such are 6, 3"):
        rewrite(network(), SHAPE, "separable", layers=["0"])
    with pytest.raises(UsageError, match="no layer for which 'pool-before-linear'"):
        rewrite(network(flat=False), SHAPE, "pool-before-linear")
    with pytest.raises(UsageError, match="no rewrite named 'separabel'"):
        rewrite(network(), SHAPE, "separabel")


def test_code_that_reads_a_layers_weight_is_refused():
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (self.second(self.first(x)) * self.second.weight.mean()).mean((2, 3))

    with pytest.raises(UsageError, match="needs layers to be as they are"):
        rewrite(Reads(), SHAPE, "separable")
    assert [each.rewrite for each in advise(Reads(), SHAPE) if each.rewrite == "separable"] == []


@pytest.mark.parametrize(
    "normed", [torch.nn.utils.weight_norm, torch.nn.utils.spectral_norm, lambda layer: prune.identity(layer, "weight")]
)
@pytest.mark.filterwarnings("ignore")
def test_layers_whose_weights_are_computed_are_left_alone_and_named_where_the_network_is_to_be_copied(normed):
    model = nn.Sequential(nn.Conv2d(3, 16, 3), normed(nn.Conv2d(16, 16, 3)), nn.Conv2d(16, 16, 3))
    assert list(candidates(model, SHAPE, "grouped")) == ["2"]
    assert advise(model, SHAPE) == ()
    for copied in (lambda: narrow(model, SHAPE, 0.5), lambda: rewrite(model, SHAPE, "grouped")):
        with pytest.raises(UsageError, match="cannot be copied: weight of 1 is computed") as caught:
            copied()
        assert "prune.remove" in caught.value.mend
