"""Updates equal those of torch's own, unfused, optimisers; norms and biases do not decay."""

import copy

import pytest
import torch
from torch import nn

from convsmith.errors import UsageError
from convsmith.training.optimizers import OPTIMIZERS, adamw, decay_groups, sgd


def make_net():
    torch.manual_seed(0)
    # the norm stands before the convolution: behind it, its bias has a gradient of rounding noise, which Adam blows up
    return nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(3 * 16, 2), nn.PReLU())


def train(net, optimizer, steps=5):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        images = torch.randn(8, 1, 6, 6, generator=generator)
        optimizer.zero_grad()
        net(images).square().mean().backward()
        optimizer.step()


def split(net):
    """The reference's own idea of what decays: weights of convolutions and linear layers."""
    weights = [module.weight for module in net.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    rest = [p for p in net.parameters() if all(p is not weight for weight in weights)]
    return weights, rest


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            lambda net: sgd(net.named_parameters(), rate=0.1, momentum=0.8, weight_decay=0.3),
            lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.8, nesterov=True, foreach=False),
        ),
        (
            lambda net: sgd(net.named_parameters(), rate=0.1, momentum=0.8, weight_decay=0.3, nesterov=False),
            lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.8, foreach=False),
        ),
        (
            lambda net: sgd(net.named_parameters(), rate=0.1, momentum=0.0, weight_decay=0.3),
            lambda groups: torch.optim.SGD(groups, lr=0.1, foreach=False),
        ),
        (
            lambda net: adamw(net.named_parameters(), rate=0.01, beta1=0.8, beta2=0.95, weight_decay=0.3),
            lambda groups: torch.optim.AdamW(groups, lr=0.01, betas=(0.8, 0.95), foreach=False),
        ),
    ],
    ids=["nesterov", "momentum", "plain", "adamw"],
)
def test_updates_equal_those_of_torch(ours, theirs):
    net = make_net()
    reference = copy.deepcopy(net)
    weights, rest = split(reference)
    train(net, ours(net))
    train(reference, theirs([{"params": weights, "weight_decay": 0.3}, {"params": rest, "weight_decay": 0.0}]))
    for left, right in zip(net.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-6)


def test_norms_and_biases_do_not_decay_and_frozen_parameters_are_left_out():
    net = make_net()
    net[3].weight.requires_grad_(False)
    decaying, others = decay_groups(net.named_parameters(), 0.1)
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert [id(p) for p in decaying["params"]] == [id(net[1].weight)]
    expected = [net[0].weight, net[0].bias, net[1].bias, net[3].bias, net[4].weight]
    assert [id(p) for p in others["params"]] == [id(p) for p in expected]


def test_a_group_without_parameters_is_left_out():
    (only,) = decay_groups(nn.BatchNorm2d(3).named_parameters(), 0.1)
    assert only["weight_decay"] == 0.0


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_a_wrong_option_is_refused_with_a_suggestion(name):
    with pytest.raises(UsageError, match=r"has no option 'rat'.*Did you mean rate"):
        OPTIMIZERS.build(name, make_net().named_parameters(), rat=0.1)
    with pytest.raises(UsageError, match="multiple values for argument 'named_parameters'"):
        OPTIMIZERS.build(name, make_net().named_parameters(), named_parameters=1)
