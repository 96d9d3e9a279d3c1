"""Stems, heads and the teaching presets: what they cost, what they compute, and how a head is found and replaced."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convsmith import design
from convsmith.networks import (
    MODELS,
    build_design,
    build_named,
    count_parameters,
    find_head,
    replace_head,
    set_head,
    size_options,
)
from convsmith.networks.counting.macs import macs_of
from convsmith.networks.recording.graph import record
from convsmith.networks.zoo import PRESETS, SIZED, preset


def network(stem: dict[str, Any] | None = None, head: dict[str, Any] | None = None, **others: Any) -> nn.Module:
    """A small network with this stem or head, in inference mode, its norms not at their defaults."""
    values = {"stem": stem or {"width": 8}, "stages": [{"width": 12, "stride": 2}], "head": head or {"kind": "average"}}
    torch.manual_seed(0)
    model = build_design(design.parse({**values, **others}), 3, 5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5)
    return model.eval()


def image(side: int = 12) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def run(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x)


def weights_and_macs(stem: dict[str, Any], side: int = 224) -> tuple[int, int]:
    model = network(stem).get_submodule("stem")
    weights = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Conv2d))
    return weights, sum(count or 0 for count in macs_of(record(model, (3, side, side))).values())


@pytest.mark.parametrize(
    ("stem", "weights", "macs"),
    [
        ({"width": 64, "kernel": 7, "stride": 2}, 9_408, 118.0),
        ({"kind": "deep", "width": 64, "hidden": 64}, 75_456, 3_786),
        ({"kind": "deep", "width": 64, "stride": 2}, 28_512, 357.7),
        ({"kind": "patchify", "width": 96, "stride": 4}, 4_608, 14.45),
    ],
)
def test_stems_have_the_weights_and_millions_of_macs_worked_out_by_hand(stem, weights: int, macs: float):
    counted = weights_and_macs(stem)
    assert counted[0] == weights
    assert counted[1] / 1e6 == pytest.approx(macs, rel=5e-4)


def test_stride_changes_what_a_stem_computes_and_not_what_it_holds():
    one, two = (weights_and_macs({"width": 64, "kernel": 7, "stride": stride}) for stride in (1, 2))
    assert one[0] == two[0]
    assert one[1] == 4 * two[1]


@pytest.mark.parametrize(
    ("stem", "side", "left"),
    [
        ({"width": 8}, 13, 13),
        ({"width": 8, "padding": 0}, 28, 26),
        ({"width": 8, "kernel": 7, "stride": 2, "pool": "max"}, 224, 56),
        ({"kind": "deep", "width": 8, "stride": 2, "pool": "average"}, 30, 8),
        ({"kind": "patchify", "width": 8, "stride": 4}, 224, 56),
        ({"kind": "patchify", "width": 8, "stride": 4}, 33, 9),
    ],
)
def test_stems_divide_sides_as_said(stem, side: int, left: int):
    assert run(network(stem).get_submodule("stem"), image(side)).shape == (2, 8, left, left)


def test_a_stem_before_preactivation_is_its_convolution_alone():
    for kind in ("conv", "deep"):
        layers = list(network({"kind": kind, "width": 8, "active": False}).get_submodule("stem").children())
        assert isinstance(layers[-1], nn.Conv2d)
        assert len(layers) == (1 if kind == "conv" else 7)


def features(model: nn.Module, x: Tensor) -> Tensor:
    return run(nn.Sequential(model.get_submodule("stem"), model.get_submodule("stages")), x)


def test_a_head_of_both_kinds_joins_average_and_maximum():
    model = network(head={"kind": "both", "hidden": [7]})
    maps = features(model, image())
    joined = torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], dim=1)
    linear, last = (model.get_submodule(f"head.{name}") for name in ("linear0", "linear"))
    torch.testing.assert_close(run(model, image()), run(last, F.relu(run(linear, joined))))


def test_a_norm_in_the_head_stands_between_pooling_and_the_linear_layer():
    model = network(head={"kind": "average", "norm": True}, norm="layer")
    pooled = features(model, image()).mean((2, 3))
    normed = F.layer_norm(pooled, (12,), *model.get_submodule("head.norm").parameters(), eps=1e-6)
    torch.testing.assert_close(run(model, image()), run(model.get_submodule("head.linear"), normed))


def test_class_maps_averaged_equal_classified_averages():
    before = network(head={"kind": "class-maps"})
    after = network(head={"kind": "class-maps", "classifier": "after"})
    after.load_state_dict({name.replace("head.0", "head.1"): held for name, held in before.state_dict().items()})
    torch.testing.assert_close(run(before, image()), run(after, image()), rtol=1e-5, atol=1e-5)
    assert count_parameters(before) == count_parameters(after) == count_parameters(network())
    maps = run(before.get_submodule("head.0"), features(before, image()))
    assert maps.shape == (2, 5, 6, 6)
    torch.testing.assert_close(run(before, image()), maps.mean((2, 3)))


@pytest.mark.parametrize("kind", ["average", "max", "both", "flatten", "class-maps"])
def test_every_head_starts_near_the_loss_of_guessing(kind: str):
    torch.manual_seed(0)
    model = MODELS.build("convnet", 3, 10, head=kind)
    loss = F.cross_entropy(model(torch.randn(64, 3, 12, 12)), torch.arange(64) % 10)
    assert loss.item() == pytest.approx(math.log(10), abs=0.1)


@pytest.mark.parametrize(
    "head",
    [
        {"kind": "average"},
        {"kind": "both", "hidden": [9], "dropout": 0.2},
        {"kind": "flatten", "grid": 2, "hidden": [9]},
        {"kind": "class-maps", "dropout": 0.2},
        {"kind": "class-maps", "classifier": "after"},
    ],
    ids=lambda head: "-".join(map(str, head.values())),
)
def test_every_head_is_found_replaced_and_set_for_other_classes(head):
    model = network(head=head)
    found = find_head(model, (3, 12, 12))
    assert found.outputs == 5
    new = replace_head(model, found, 4)
    set_head(model, new, torch.zeros(4, new.in_features), torch.arange(4.0))
    assert torch.equal(run(model, image()), torch.arange(4.0).expand(2, 4))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("simple", 30_790),
        ("simple-gap", 2_190),
        ("mlp", 785 * 256 + 257 * 256 + 257 * 10),
        ("lightweight", 144 + 32 + sum(11 * c + 2 * c**2 + 4 * c for c in (16, 32, 64)) + 129 * 10),
    ],
)
def test_teaching_presets_have_the_parameters_worked_out_by_hand(name: str, parameters: int):
    model = build_named(name, 1, 10, **size_options(name, 28))
    assert count_parameters(model).total == parameters
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.parametrize(("name", "grid"), [("simple", {8: 2, 28: 12, 96: 12}), ("mlp", {8: 8, 28: 28, 96: 64})])
def test_presets_that_read_all_positions_are_made_for_the_size_of_the_images(name: str, grid: dict[int, int]):
    for side, cells in grid.items():
        model = build_named(name, 3, 10, **size_options(name, side))
        first = next(module for module in model.modules() if isinstance(module, nn.Linear))
        assert first.in_features == cells**2 * (20 if name == "simple" else 3)
        assert model(torch.zeros(2, 3, side, side)).shape == (2, 10)


@pytest.mark.parametrize("name", [*PRESETS, *SIZED])
def test_every_preset_is_the_design_that_is_built_under_its_name(name: str):
    made = preset(name, 20)
    assert made is not None
    shapes = [
        {key: tensor.shape for key, tensor in model.state_dict().items()}
        for model in (build_design(made, 3, 10), build_named(name, 3, 10, **size_options(name, 20)))
    ]
    assert shapes[0] == shapes[1]


def test_a_name_whose_options_make_the_design_has_none_of_its_own():
    assert preset("convnet") is None


def test_hidden_layers_start_by_passing_on_what_they_see_and_the_last_one_small():
    torch.manual_seed(0)
    model = build_named("mlp", 1, 10, side=28)
    seen: list[Tensor] = []
    with torch.no_grad():
        x = torch.randn(64, 1, 28, 28)
        for module in model.modules():
            if not isinstance(module, nn.Sequential):
                x = module(x)
                seen.append(x)
    hidden, logits = seen[-2], seen[-1]
    assert hidden.square().mean().item() == pytest.approx(1.0, rel=0.3)  # He et al. 2015, equation 10
    assert logits.std() < 0.3
