"""What weights start from: the variances of the papers, PyTorch's own functions, and rules by type of layer."""

import copy
import math

import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import timm
import torch
from torch import nn

from convsmith.errors import UsageError
from convsmith.networks.initialisation import INITIALISATIONS, fans, gain_of, initialise, residual_ends
from convsmith.networks.winograd import WinogradConv2d

TORCH = {
    "kaiming-normal-fan-in": lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"),
    "kaiming-normal-fan-out": lambda w: nn.init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu"),
    "kaiming-uniform-fan-in": lambda w: nn.init.kaiming_uniform_(w, nonlinearity="relu"),
    "kaiming-uniform-fan-out": lambda w: nn.init.kaiming_uniform_(w, mode="fan_out", nonlinearity="relu"),
    "xavier-normal": nn.init.xavier_normal_,
    "xavier-uniform": nn.init.xavier_uniform_,
    "orthogonal": lambda w: nn.init.orthogonal_(w, math.sqrt(2)),
    "normal-0.01": lambda w: nn.init.normal_(w, std=0.01),
}


@pytest.mark.parametrize("name", INITIALISATIONS)
@pytest.mark.parametrize(
    "layer", [nn.Conv2d(6, 10, 3), nn.Linear(30, 20), WinogradConv2d(6, 10)], ids=lambda m: type(m).__name__
)
def test_rules_without_groups_are_those_of_pytorch_draw_for_draw(name, layer):
    torch.manual_seed(3)
    initialise(layer, name)
    torch.manual_seed(3)
    expected = TORCH[name](torch.empty_like(layer.weight))
    torch.testing.assert_close(layer.weight.detach(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("layer", "inward", "outward"),
    [
        (nn.Linear(30, 20), 30, 20),
        (nn.Conv2d(6, 10, (3, 5)), 90, 150),
        (nn.Conv2d(64, 64, 3, groups=64), 9, 9),
        (nn.Conv2d(8, 12, 3, groups=4), 18, 27),
        (nn.ConvTranspose2d(8, 12, 3), 72, 108),
        (nn.ConvTranspose2d(8, 12, 3, groups=4), 18, 27),
        (nn.Conv1d(4, 6, 5), 20, 30),
    ],
    ids=str,
)
def test_fans_are_counted_by_hand_in_groups_and_backwards_too(layer, inward, outward):
    counted = fans(layer)
    assert (counted.inward, counted.outward) == (inward, outward)
    nn.init.ones_(layer.weight)
    nn.init.zeros_(layer.bias)
    channels = 30 if isinstance(layer, nn.Linear) else layer.in_channels
    image = torch.ones(1, channels, *(15,) * (layer.weight.dim() - 2))
    assert layer(image)[(0, 0, *(5,) * (layer.weight.dim() - 2))].item() == inward  # so many ones are summed


@pytest.mark.parametrize("transposed", [False, True])
def test_orthogonal_weights_keep_lengths_group_by_group(transposed):
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    layer = kind(16, 8, 3, groups=2)
    initialise(layer, "orthogonal", activation=None)
    for part in layer.weight.chunk(2):
        rows = (part.transpose(0, 1) if transposed else part).flatten(1)
        torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), atol=1e-5, rtol=0)


def test_gains_are_the_integrals():
    def mean_square(function) -> float:
        return scipy.integrate.quad(lambda z: function(z) ** 2 * scipy.stats.norm.pdf(z), -12, 12, epsabs=1e-12)[0]

    assert gain_of("relu") == pytest.approx(nn.init.calculate_gain("relu"), rel=1e-6)
    assert gain_of("leaky-relu") == pytest.approx(nn.init.calculate_gain("leaky_relu", 0.01), rel=1e-6)
    for name, function in (("gelu", lambda z: z * scipy.special.ndtr(z)), ("tanh", math.tanh)):
        assert gain_of(name) == pytest.approx(mean_square(function) ** -0.5, rel=1e-6)


class Mixed(nn.Module):
    """One of each kind of layer, and parameters that no rule is for."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.last = nn.GroupNorm(2, 8)
        self.head = nn.Linear(8, 4)
        self.again = self.head
        self.scale = nn.Parameter(torch.full((8,), 0.5))


def test_each_type_of_layer_has_its_rule_and_the_rest_is_named():
    model = Mixed()
    model.norm.running_mean.fill_(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(3)
    started = initialise(model, "kaiming-normal-fan-out", linear="normal-0.01", bias=0.25, zero=["last"])
    assert {item.name: item.rule for item in started} == {
        "scale": "as it was",
        "conv.weight": "kaiming-normal-fan-out",
        "conv.bias": "0.25",
        "norm.weight": "1",
        "norm.bias": "0",
        "last.weight": "0",
        "last.bias": "0",
        "head.weight": "normal-0.01",
        "head.bias": "0.25",
    }
    assert model.scale.unique().tolist() == [3.5]
    assert model.conv.bias.unique().tolist() == [0.25]
    assert model.norm.weight.unique().tolist() == [1]
    assert not model.last.weight.any()
    assert not model.norm.running_mean.any()
    assert model.head.weight.std().item() == pytest.approx(0.01, rel=0.5)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "kaiming"}, r"no initialisation named 'kaiming'.*kaiming-normal"),
        ({"name": "orthogonal", "linear": "xavier"}, r"no initialisation named 'xavier'.*xavier-normal"),
        ({"name": "orthogonal", "activation": "conv"}, r"no activation named 'conv'.*Known: gelu"),
        ({"name": "orthogonal", "zero": ["nrm"]}, r"no norm at 'nrm'.*norm"),
    ],
)
def test_what_is_not_known_is_refused_before_anything_is_drawn(options, says):
    model = Mixed()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(UsageError, match=says):
        initialise(model, **options)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["resnet18d", "regnety_002", "test_convnext"])
def test_the_ends_of_residual_branches_are_those_that_timm_starts_from_zero(name):
    model = timm.create_model(name, zero_init_last=True) if "conv" not in name else timm.create_model(name)
    zeroed = [path for path, module in model.named_modules()
              if isinstance(module, nn.BatchNorm2d) and not module.weight.any()]  # fmt: skip
    assert sorted(residual_ends(model, (3, 64, 64))) == sorted(zeroed)


def test_from_zero_gamma_every_block_starts_as_its_shortcut():
    model = timm.create_model("resnet18")
    initialise(model, "kaiming-normal-fan-out", zero=residual_ends(model, (3, 64, 64)))
    x = torch.rand(2, 64, 8, 8)
    assert torch.equal(model.layer1(x), x)
