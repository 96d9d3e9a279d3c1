"""The signal at each depth beside statistics taken by hand and what theory says of it; the network stays as it was."""

import pytest
import torch
from torch import nn

from convsmith.errors import UsageError
from convsmith.networks.initialisation import initialise
from convsmith.networks.signal import signal_through_depth


class Block(nn.Module):
    """A block whose sum no layer makes, and an activation that writes in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.act = nn.ReLU(inplace=True)
        self.skip = nn.Identity()

    def forward(self, x):
        return self.act(self.norm(self.conv(x))) + self.skip(x)


def test_signals_are_those_of_the_tensors_in_the_order_of_the_calls():
    torch.manual_seed(0)
    model = nn.Sequential(Block(), nn.Flatten(), nn.Linear(48, 2))
    x = torch.randn(8, 3, 4, 4)
    signals = signal_through_depth(model, x)
    assert [(signal.path, signal.type, signal.kind) for signal in signals] == [
        ("0.conv", "Conv2d", "weights"),
        ("0.norm", "BatchNorm2d", "norm"),
        ("0.act", "ReLU", "other"),
        ("0.skip", "Identity", "other"),
        ("0", "Block", "other"),
        ("1", "Flatten", "other"),
        ("2", "Linear", "weights"),
    ]
    conv = model[0].conv(x)
    normed = nn.functional.batch_norm(conv, None, None, training=True)
    by_hand = [conv, normed, normed.relu(), x, normed.relu() + x]
    for signal, tensor in zip(signals, by_hand, strict=False):
        assert signal.mean == pytest.approx(tensor.mean().item(), abs=1e-6)
        assert signal.variance == pytest.approx(tensor.var(correction=0).item(), rel=1e-4)


def test_nothing_is_left_behind():
    model = nn.Sequential(Block(), nn.Dropout())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    signal_through_depth(model, torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(0)))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_trained_network_is_measured_with_what_its_norms_learned():
    norm = nn.BatchNorm2d(3)
    norm.running_var.fill_(4)
    x = torch.randn(64, 3, 8, 8)
    assert signal_through_depth(norm, x)[0].variance == pytest.approx(1, rel=0.01)
    assert signal_through_depth(norm, x, training=False)[0].variance == pytest.approx(0.25, rel=0.1)


def test_values_that_are_not_finite_have_no_variance():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    nn.init.constant_(model[1].weight, float("inf"))
    first, second = signal_through_depth(model, torch.ones(2, 2))
    assert first.variance is not None
    assert (second.mean, second.variance) == (None, None)


def test_one_image_has_no_statistics_to_train_with():
    with pytest.raises(UsageError, match=r"Give two images or more"):
        signal_through_depth(nn.Flatten(), torch.zeros(1, 3, 4, 4))


def deep(rule: str, activation: type[nn.Module], name: str | None, depth: int = 20) -> list[float]:
    """The variance behind each of some linear layers, whose inputs have gone through an activation."""
    torch.manual_seed(0)
    layers = [layer for _ in range(depth) for layer in (activation(), nn.Linear(256, 256))]
    model = nn.Sequential(*layers)
    initialise(model, rule, activation=name)
    signals = signal_through_depth(model, torch.randn(256, 256))
    return [signal.variance for signal in signals if signal.kind == "weights" and signal.variance is not None]


@pytest.mark.parametrize("rule", ["kaiming-normal-fan-in", "kaiming-uniform-fan-out", "orthogonal"])
@pytest.mark.parametrize(("activation", "name"), [(nn.GELU, "gelu"), (nn.SiLU, "silu"), (nn.Tanh, "tanh")])
def test_the_right_gain_keeps_a_signal_of_variance_one(rule, activation, name):
    assert deep(rule, activation, name, depth=1) == pytest.approx([1.0], rel=0.1)
    assert deep(rule, activation, None, depth=1)[0] < 0.6


def test_the_gain_of_relu_keeps_the_signal_through_depth():
    assert 0.5 < deep("kaiming-normal-fan-in", nn.ReLU, "relu")[-1] < 2


def test_without_the_gain_a_relu_halves_the_signal_each_time():
    variances = deep("kaiming-normal-fan-in", nn.ReLU, None)
    assert variances[-1] / variances[0] == pytest.approx(2**-19, rel=2)
    assert deep("xavier-normal", nn.ReLU, "relu")[-1] == pytest.approx(variances[-1], rel=2)


def test_orthogonal_layers_keep_every_length():
    variances = deep("orthogonal", nn.Identity, None)
    assert variances == pytest.approx([1.0] * 20, rel=0.02)
