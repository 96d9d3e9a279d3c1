"""Learnt filters beside the classical kernels: known ones are found, random ones are not."""

from __future__ import annotations

import numpy as np
import pytest

from convsmith.errors import UsageError
from convsmith.networks.kernels.bank import KERNELS, gabor, kernel_named
from convsmith.networks.kernels.match import CHANCE, LEAST, likenesses, threshold


def test_every_classical_kernel_of_its_size_is_found_at_any_strength_and_sign():
    named = {name: KERNELS.build(name) for name in KERNELS}
    small = {name: kernel for name, kernel in named.items() if kernel.shape == (3, 3)}
    for factor, changes in ((0.01, ()), (-3.0, ("negated",))):
        found = likenesses(np.stack([factor * kernel[None] for kernel in small.values()]))
        assert [each.kernel for each in found] == list(small)
        assert {each.changes for each in found} == {changes}
        assert all(each.near and each.cosine == pytest.approx(1.0) for each in found)
        assert found[0].says == ", ".join(("identity", *changes))


def test_a_mirrored_kernel_is_found_as_such_and_its_shape_is_the_mirrored_one():
    emboss = KERNELS.build("emboss")
    (found,) = likenesses(emboss[None, None, :, ::-1])
    assert (found.kernel, found.changes) == ("emboss", ("mirrored left to right",))
    assert np.allclose(found.shape, emboss[:, ::-1] / np.linalg.norm(emboss))


def test_the_likeness_is_the_cosine():
    filter_ = KERNELS.build("sobel-vertical") + 0.4 * KERNELS.build("box")
    sobel = KERNELS.build("sobel-vertical")
    expected = (filter_ * sobel).sum() / np.linalg.norm(filter_) / np.linalg.norm(sobel)
    (found,) = likenesses(filter_[None, None])
    assert found.kernel == "sobel-vertical"
    assert found.cosine == pytest.approx(expected)


def test_the_channels_of_a_colour_filter_weigh_the_kernel_as_fits_best():
    weights = np.array([0.6, 0.0, -0.8])
    filters = weights[None, :, None, None] * KERNELS.build("line-vertical")
    filters[0, 1] = 0.1 * KERNELS.build("line-horizontal")
    (found,) = likenesses(filters)
    assert found.kernel == "line-vertical"
    assert np.allclose(found.channels, [0.6, 0.0, -0.8], atol=0.05)
    assert found.says == "line-vertical in red 0.6, green 0.0, blue -0.8"
    assert found.changes == ()
    # No other weights of the channels come nearer: the cosine is the largest of a sweep over them.
    shape = KERNELS.build("line-vertical") / np.linalg.norm(KERNELS.build("line-vertical"))
    sweep = np.random.default_rng(0).normal(size=(2000, 3))
    sweep /= np.linalg.norm(sweep, axis=1, keepdims=True)
    tried = np.abs(np.einsum("nc,ckl,kl->n", sweep, filters[0], shape)) / np.linalg.norm(filters)
    assert tried.max() <= found.cosine + 1e-9
    assert tried.max() > found.cosine - 0.01


@pytest.mark.parametrize(("channels", "size"), [(1, 3), (3, 3), (1, 7)])
def test_few_random_filters_are_near_and_the_threshold_says_how_few(channels, size):
    random = np.random.default_rng(11).normal(size=(3000, channels, size, size))  # other draws than the threshold's
    near = np.mean([each.near for each in likenesses(random)])
    assert near <= 2 * CHANCE
    assert threshold(channels, size) >= LEAST
    if (channels, size) == (1, 3):
        assert near >= CHANCE / 3
        assert threshold(channels, size) == pytest.approx(0.905, abs=0.01)


def test_a_larger_filter_is_compared_with_kernels_of_its_own_size_whose_names_can_be_typed():
    filter_ = gabor(7, wavelength=3.5, angle=45, phase=90, sigma=1.75, aspect=1) + 0.01
    (found,) = likenesses(filter_[None, None])
    assert found.kernel.startswith("gabor:size=7,")
    assert found.near
    typed = kernel_named(found.kernel)[1]
    sign = -1 if "negated" in found.changes else 1
    assert abs(float((sign * typed * found.shape).sum()) / np.linalg.norm(typed)) == pytest.approx(1.0, abs=1e-6)


def test_a_filter_of_zeros_is_like_nothing():
    (found,) = likenesses(np.zeros((1, 3, 3, 3)))
    assert (found.cosine, found.near, found.says) == (0.0, False, "no near one")


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (4, 3, 3, 5), (2, 3, 2, 2)])
def test_filters_without_a_shape_to_compare_are_refused(shape):
    with pytest.raises(UsageError, match=f"{shape[2]}x{shape[3]}"):
        likenesses(np.ones(shape))
