"""The conformance suite of layers finds each fault that it is there for, and names it."""

import pytest
import torch
from torch import nn

from convsmith.testing import LAYER_CHECKS, LayerCase, NotConforming

SHAPE = (4, 6, 8)


class Layer(nn.Module):
    """A healthy layer, which others spoil: a factor and a running mean for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.randn(4, 1, 1))
        self.register_buffer("mean", torch.zeros(4, 1, 1))

    def forward(self, x):
        mean = self.mean.to(x.dtype)
        if self.training:
            mean = x.mean((0, 2, 3))[:, None, None]
            self.mean.lerp_(mean.detach().to(self.mean.dtype), 0.1)
        return (x - mean) * self.factor


class Halved(Layer):
    def forward(self, x):
        return super().forward(x)[..., ::2]


class Widened(Layer):
    def forward(self, x):
        return super().forward(x).double()


class Larger(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.more = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        return super().forward(x) + self.more.sum()


class Detached(Layer):
    def forward(self, x):
        return super().forward(x) + (x.detach() * self.factor).square()


class Idle(Layer):
    def forward(self, x):
        return x + 0 * self.factor


class Rough(Layer):
    def forward(self, x):
        return super().forward((x + 300) - 300)


class Wide(Layer):
    def forward(self, x):
        return super().forward(x).float() if x.dtype == torch.bfloat16 else super().forward(x)


class Branching(Layer):
    def forward(self, x):
        return super().forward(x if x.flatten()[0] > 0 else -x)


class Ordered(Layer):
    def forward(self, x):
        early = torch.arange(x.numel()).view(x.shape) if x.is_contiguous() else torch.zeros(())
        return super().forward(x) + (early > 3)


class Overwriting(Layer):
    def forward(self, x):
        return x.mul_(self.factor.detach()) * self.factor


class Mixing(Layer):
    def forward(self, x):
        return super().forward(x - x.mean(0, keepdim=True))


class Forgetful(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(4, 1, 1), persistent=False)


class Noisy(Layer):
    def forward(self, x):
        return super().forward(x) * (1 + 0.001 * torch.rand(1, dtype=x.dtype))


FAULTS = [
    (Halved, "shape_is_as_worked_out", r"leaves \(3, 4, 6, 4\) instead of \(3, 4, 6, 8\)"),
    (Widened, "shape_is_as_worked_out", "turns torch.float32 into torch.float64"),
    (Larger, "parameters_are_as_worked_out", "6 parameters instead of 4"),
    (Detached, "gradient_is_that_of_differences", "differences do not confirm"),
    (Idle, "gradient_is_that_of_differences", "without effect: factor"),
    (Rough, "bfloat16_is_close", "cast to bfloat16 is off by"),
    (Wide, "bfloat16_is_close", "cast to bfloat16 gives torch.float32"),
    (Branching, "export_gives_the_same", "cannot be exported"),
    (Ordered, "channels_last_gives_the_same", "in channels last is off by"),
    (Overwriting, "input_stays", "writes to its input"),
    (Mixing, "images_do_not_mix", "mixes the images of a batch"),
    (Forgetful, "state_is_whole", "does not keep all that it learned"),
    (Noisy, "draws_follow_the_seed", "draws"),
]


def case(layer: type[nn.Module], **expected) -> LayerCase:
    return LayerCase(layer, shape=SHAPE, parameters=4, **expected)


def test_a_healthy_layer_passes_and_leaves_the_random_state():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    for check in LAYER_CHECKS:
        check(case(Layer))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("layer", "finds", "says"), FAULTS, ids=[layer.__name__ for layer, *_ in FAULTS])
def test_each_fault_is_found_by_the_check_that_is_there_for_it(layer, finds, says):
    check = {check.__name__: check for check in LAYER_CHECKS}[finds]
    with pytest.raises(NotConforming, match=says):
        check(case(layer))


def test_every_check_has_a_fault_that_it_finds():
    assert {finds for _, finds, _ in FAULTS} == {check.__name__ for check in LAYER_CHECKS}


def test_a_layer_that_says_it_draws_has_to():
    checks = {check.__name__: check for check in LAYER_CHECKS}
    with pytest.raises(NotConforming, match="does not draw"):
        checks["draws_follow_the_seed"](case(Layer, random=True))
