"""Effective fields are what convolving kernels by hand gives, within the theoretical ones, and leave nothing behind."""

import copy

import numpy as np
import pytest
import timm
import torch
from torch import nn

from convsmith.errors import UsageError
from convsmith.evidence import effective_fields
from convsmith.evidence.fields import effective_side


def images_of(n=1, channels=1, size=32):
    return torch.from_numpy(np.random.default_rng(0).normal(size=(n, channels, size, size)).astype(np.float32))


def chain(*kernels, stride=1):
    """Convolutions without bias, of one channel, with these kernels, and a head."""
    layers = []
    for kernel in kernels:
        layer = nn.Conv2d(1, 1, len(kernel), stride=stride, padding=len(kernel) // 2, bias=False)
        layer.weight.data[:] = torch.tensor(kernel, dtype=torch.float32)
        layers.append(layer)
    return nn.Sequential(nn.Sequential(*layers), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_of_one_kernel_the_weights_are_its_numbers_at_the_middle():
    kernel = np.arange(-12, 13).reshape(5, 5)
    (seen,) = effective_fields(chain(kernel), images_of())
    assert (seen.name, seen.places, seen.box, seen.whole) == ("0", (32, 32), (14, 14, 18, 18), False)
    np.testing.assert_allclose(seen.weights[14:19, 14:19], np.abs(kernel), rtol=1e-5)
    assert seen.weights.sum() == pytest.approx(np.abs(kernel).sum())
    assert seen.centre == (16, 16)


class Tripled(nn.Module):
    """Works in place on what a stage returned."""

    def __init__(self, kernel):
        super().__init__()
        self.features, self.pool = chain(kernel)[0], nn.AdaptiveAvgPool2d(1)

    def forward(self, images):
        return self.pool(self.features(images).mul_(3))


def test_what_follows_a_stage_does_not_count_even_where_it_works_in_place():
    (seen,) = effective_fields(Tripled(np.full((3, 3), 2.0)), images_of())
    assert seen.weights.max() == pytest.approx(2)


def test_a_stack_of_equal_kernels_has_the_field_that_convolving_them_gives_and_most_of_it_is_in_its_middle():
    """Luo et al. 2016, section 2.3: uniform kernels make a binomial, which becomes a Gaussian."""
    (seen,) = effective_fields(chain(*[np.ones((3, 3))] * 8), images_of(size=48))
    profile = np.ones(1)
    for _ in range(8):
        profile = np.convolve(profile, np.ones(3))
    expected = np.zeros((48, 48))
    expected[16:33, 16:33] = np.outer(profile, profile)
    np.testing.assert_allclose(seen.weights, expected, rtol=1e-4, atol=1e-3)
    assert seen.box == (16, 16, 32, 32)
    share = np.cumsum((profile**2)[8:] * [1, *[2] * 8]) / (profile**2).sum()  # along one side; in both, its square
    assert seen.side == 2 * int(np.searchsorted(share**2, 0.95)) + 1 == 9


def test_features_count_with_their_squares():
    """Two features that look at different pixels, so that no draw of signs makes a difference."""
    model = chain(np.zeros((3, 3)))
    model[0][0] = nn.Conv2d(1, 2, 3, padding=1, bias=False)
    model[0][0].weight.data[:] = 0
    model[0][0].weight.data[0, 0, 0, 1] = 3
    model[0][0].weight.data[1, 0, 2, 2] = 4
    (seen,) = effective_fields(model, images_of(2))
    assert seen.weights[15, 16] == pytest.approx(3)
    assert seen.weights[17, 17] == pytest.approx(4)
    assert np.count_nonzero(seen.weights) == 2


def test_the_effective_side_is_that_of_a_square_about_the_middle():
    weights = np.zeros((9, 9))
    weights[4, 4] = 3
    weights[4, 6] = 1  # a tenth of the squares
    assert [effective_side(weights, (4, 4), share) for share in (0.5, 0.89, 0.91)] == [1, 1, 5]
    assert effective_side(weights, (4, 5), 0.95) == 3
    assert effective_side(weights, (4.5, 4.5), 0.95) == 4


def test_no_pixel_outside_the_theoretical_fields_has_weight():
    torch.manual_seed(0)
    stages = effective_fields(timm.create_model("test_resnet"), images_of(channels=3, size=64))
    assert [seen.places for seen in stages] == [(32, 32), (16, 16), (8, 8), (4, 4), (2, 2)]
    for seen in stages:
        top, left, bottom, right = seen.box
        inside = seen.weights[max(0, top) : bottom + 1, max(0, left) : right + 1]
        assert inside.sum() == pytest.approx(seen.weights.sum())
        assert 0 < seen.side <= bottom - top + 1
    assert stages[0].side < stages[-1].side


def test_the_same_picture_has_the_same_fields_and_nothing_is_left_behind():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout(0.5)),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
    ).train()  # fmt: skip
    model[0][1].eval()
    model(images_of(4, 3)).sum().backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    state, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    drawn = torch.get_rng_state()
    images = images_of(2, 3)
    done = []
    first = effective_fields(model, images, progress=lambda *step: done.append(step))
    with torch.inference_mode():
        again = effective_fields(model, images)
    assert np.array_equal(first[0].weights, again[0].weights)
    assert not np.array_equal(first[0].weights, effective_fields(model, images, seed=1)[0].weights)
    assert done == [(1, 2), (2, 2)]
    assert not images.requires_grad
    assert torch.equal(drawn, torch.get_rng_state())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks for module in model.modules())


def test_tokens_in_an_order_of_their_own_have_weights_but_no_side():
    model = timm.create_model("vit_tiny_patch16_224", depth=1, embed_dim=24, num_heads=2, img_size=32)
    patches, last = effective_fields(model, images_of(channels=3))
    assert (patches.places, patches.box, patches.whole) == ((2, 2), (16, 16, 31, 31), False)
    assert (last.places, last.whole, last.side) == ((5, 1), True, None)
    assert last.weights.all()


@pytest.mark.parametrize(
    ("model", "images", "says"),
    [
        (chain(np.ones((3, 3))), images_of(0), "no picture to look at"),
        (nn.Sequential(nn.Flatten(), nn.Linear(1024, 4)), images_of(), "no maps in which places are told apart"),
    ],
)
def test_what_cannot_be_measured_is_refused(model, images, says):
    with pytest.raises(UsageError, match=says):
        effective_fields(model, images)
