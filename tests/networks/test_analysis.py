"""Costs worked out by hand, and a model that is left as it was."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from convsmith.design import doubling
from convsmith.networks import activation_bytes, build_design, count_macs, count_parameters
from convsmith.networks.analysis import undisturbed


def test_shared_and_frozen_parameters_are_counted_as_such():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2), nn.BatchNorm1d(2))
    model[1].weight = model[0].weight
    model[2].requires_grad_(False)
    counts = count_parameters(model)
    assert (counts.trainable, counts.total) == (9 + 3 + 3 + 4, 9 + 3 + 3 + 4 + 8)


@pytest.mark.parametrize(
    ("model", "shape", "macs"),
    [
        (nn.Conv2d(3, 64, 7, 2, 3), (3, 224, 224), 9_408 * 112 * 112),
        (
            nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), nn.Conv2d(32, 32, 3, 1, 1), nn.Conv2d(32, 64, 3, 1, 1)),
            (3, 224, 224),
            28_512 * 112 * 112,
        ),
        (nn.Conv2d(32, 32, 3, padding=1, groups=32), (32, 10, 10), 288 * 100),
        (nn.Sequential(nn.Flatten(), nn.Linear(784, 100)), (1, 28, 28), 78_400),
        (nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2)), (3, 8, 8), 0),
    ],
)
def test_multiply_adds_are_those_worked_out_by_hand(model, shape, macs):
    assert count_macs(model, shape) == macs


def test_multiply_adds_of_a_residual_net_by_hand():
    stem, first = 9 * 8 * 64, 2 * 9 * 8 * 8 * 64
    second = (9 * 8 * 16 + 9 * 16 * 16 + 8 * 16) * 16
    assert (
        count_macs(build_design(doubling(width=8, depth=1, stages=2), 1, 10), (1, 8, 8)) == stem + first + second + 160
    )


def test_activations_kept_for_the_backward_pass_by_hand():
    # A convolution keeps its input, a ReLU its result, which is also the input of the next convolution: counted once.
    model = nn.Sequential(nn.Conv2d(2, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 3, 1, bias=False))
    per_image = (2 + 4) * 5 * 5 * 4
    assert activation_bytes(model, (2, 5, 5), batch=10) == 10 * per_image
    assert activation_bytes(model, (2, 5, 5), batch=10, probe=2) == 10 * per_image


def test_activations_seen_through_two_views_count_once():
    # The ReLU keeps its result, and the linear layer the same numbers flattened.
    model = nn.Sequential(nn.Conv2d(2, 4, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(100, 3))
    assert activation_bytes(model, (2, 5, 5), batch=10) == 10 * (2 + 4) * 5 * 5 * 4


class Restless(nn.Module):
    """Changes everything that a forward pass can change."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.weight = nn.Parameter(torch.ones(1))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("last", torch.zeros(()))

    def forward(self, x):
        with torch.no_grad():
            self.weight += 1
            self.calls += 1
            self.last = x.mean() + 1
        noise = torch.rand(1) + random.random() + np.random.rand()
        return self.norm(x + 1) * self.weight * noise


def test_measuring_leaves_no_trace():
    model = Restless()
    model.norm.eval()
    model.weight.grad = torch.full((1,), 5.0)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    count_macs(model, (1, 4, 4))
    activation_bytes(model, (1, 4, 4), batch=8)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert (model.training, model.norm.training) == (True, False)
    assert model.weight.grad.item() == 5
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1], states[2]) == (random.getstate(), np.random.get_state()[1].tolist())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_all_is_put_back_after_an_error_too():
    model = nn.Dropout()
    state = torch.get_rng_state()
    with pytest.raises(TypeError), undisturbed(model, training=False):
        model(torch.rand(1) + None)
    assert model.training
    assert torch.equal(state, torch.get_rng_state())
