"""Depthwise convolutions in bfloat16: the gradients are those of float32, wherever they are computed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from convsmith.tasks import classification
from convsmith.training import Loop
from convsmith.training.depthwise import DepthwiseGradients, has_depthwise


def gradients(layer: nn.Module, x: torch.Tensor, *, bfloat16: bool, ours: bool) -> list[torch.Tensor]:
    layer.zero_grad()
    own = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        if ours:
            with DepthwiseGradients():
                output = layer(own)
        else:
            output = layer(own)
    assert output.dtype == (torch.bfloat16 if bfloat16 else torch.float32)
    (output.float() * torch.linspace(-1, 1, output.numel()).reshape(output.shape)).sum().backward()
    assert own.grad is not None
    return [own.grad, *(parameter.grad.clone() for parameter in layer.parameters())]


@pytest.mark.parametrize(
    "options", [{}, {"stride": 2}, {"dilation": 2}, {"bias": False}, {"out_channels": 12}], ids=str
)
@pytest.mark.parametrize("kernel", [3, 5, (3, 5)], ids=str)
def test_gradients_are_those_of_float32_to_the_precision_of_bfloat16(kernel, options):
    torch.manual_seed(0)
    layer = nn.Conv2d(6, kernel_size=kernel, padding=2, groups=6, **{"out_channels": 6, **options})
    x = torch.randn(4, 6, 17, 19)
    exact = gradients(layer, x, bfloat16=False, ours=False)
    for found, expected in zip(gradients(layer, x, bfloat16=True, ours=True), exact, strict=True):
        assert found.dtype == torch.float32
        assert (found - expected).norm() < 0.01 * expected.norm()


def test_what_is_no_depthwise_convolution_in_bfloat16_stays_as_it_is():
    torch.manual_seed(0)
    x = torch.randn(2, 6, 9, 9)
    for layer, bfloat16 in ((nn.Conv2d(6, 6, 3, groups=3), True), (nn.Conv2d(6, 6, 3, groups=6), False)):
        ours, theirs = (gradients(layer, x, bfloat16=bfloat16, ours=ours) for ours in (True, False))
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    same = nn.Conv2d(6, 6, 3, groups=6, padding="same")
    assert len(gradients(same, x, bfloat16=True, ours=True)) == 3


def test_a_gradient_of_a_gradient_is_refused():
    layer, x = nn.Conv2d(4, 4, 3, groups=4), torch.randn(1, 4, 8, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16), DepthwiseGradients():
        output = layer(x).float().square().sum()
    (gradient,) = torch.autograd.grad(output, x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_the_loop_takes_them_for_networks_that_have_such_layers_and_trains_in_bfloat16():
    depthwise = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 5, 2, groups=8), nn.Flatten(), nn.LazyLinear(2))
    depthwise(torch.zeros(1, 3, 16, 16))
    plain = nn.Sequential(nn.Flatten(), nn.Linear(768, 2))
    assert has_depthwise(depthwise)
    assert not has_depthwise(plain)
    for model, precision, expected in (
        (depthwise, "bfloat16", True), (depthwise, "float32", False), (plain, "bfloat16", False),
    ):  # fmt: skip
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        loop = Loop(model, classification(), {"model": optimizer}, steps=1, precision=precision)
        seen = []
        model[0].register_forward_hook(lambda *_, seen=seen: seen.append(in_mode()))
        list(loop.run([(torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 0, 1]))]))
        assert seen == [expected]


def in_mode() -> bool:
    from torch.overrides import _get_current_function_mode_stack

    return any(isinstance(mode, DepthwiseGradients) for mode in _get_current_function_mode_stack())
