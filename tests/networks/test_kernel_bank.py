"""The classical kernels: against scipy's, their formulas, and what each is said to find."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from convsmith.errors import UsageError
from convsmith.networks.kernels.bank import (
    KERNELS,
    gabor,
    gaussian,
    gaussian_derivative,
    kernel_named,
    laplacian_of_gaussian,
)
from convsmith.networks.kernels.filtering import convolve

PICTURE = np.random.default_rng(7).normal(size=(15, 15))
IMPULSE = np.zeros((31, 31))
IMPULSE[15, 15] = 1.0
BLURS = {"gaussian", "box"}
KEEP = {"identity", "sharpen", "emboss"}


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float((one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other))


@pytest.mark.parametrize("name", list(KERNELS))
def test_every_kernel_is_square_finite_and_does_to_flat_areas_what_its_kind_does(name):
    kernel = KERNELS.build(name)
    assert kernel.shape[0] == kernel.shape[1] >= 3
    assert kernel.shape[0] % 2 == 1
    flat = float(convolve(np.full((9, 9), 100.0), kernel)[0, 0])
    assert flat == pytest.approx(100.0 if name in BLURS | KEEP else 0.0, abs=1e-9)
    if name in BLURS:
        assert (kernel > 0).all()


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("sobel-horizontal", lambda x: ndimage.sobel(x, axis=0)),
        ("sobel-vertical", lambda x: ndimage.sobel(x, axis=1)),
        ("prewitt-horizontal", lambda x: ndimage.prewitt(x, axis=0)),
        ("prewitt-vertical", lambda x: ndimage.prewitt(x, axis=1)),
        ("laplacian", ndimage.laplace),
        ("box", lambda x: ndimage.uniform_filter(x, 3)),
    ],
)
def test_kernels_that_scipy_has_agree_with_it(name, theirs):
    assert np.allclose(convolve(PICTURE, KERNELS.build(name)), theirs(PICTURE)[1:-1, 1:-1])


def test_kernels_by_formula_agree_with_scipys_responses_to_one_bright_pixel():
    inside = slice(15 - 5, 15 + 6)
    # scipy convolves, which turns the kernel round; a bell and its curvature are the same turned, a slope is negated.
    theirs = ndimage.gaussian_filter(IMPULSE, 1.3, radius=5)[inside, inside]
    assert np.allclose(gaussian(11, 1.3), theirs)
    slope = -ndimage.gaussian_filter(IMPULSE, 1.3, order=(0, 1), radius=5)[inside, inside]
    assert cosine(gaussian_derivative(11, 1.3), slope) == pytest.approx(1.0, abs=1e-6)
    curved = ndimage.gaussian_laplace(IMPULSE, 1.3, radius=5)[inside, inside]
    assert cosine(laplacian_of_gaussian(11, 1.3), curved) > 0.9999


def test_the_bell_of_binomial_numbers_is_the_one_of_the_textbooks():
    assert (16 * gaussian(3)).tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    assert (256 * gaussian(5))[0].tolist() == [1, 4, 6, 4, 1]


def test_gabor_follows_its_formula_pixel_by_pixel():
    options = {"wavelength": 5.0, "angle": 30.0, "phase": 40.0, "sigma": 1.7, "aspect": 0.6}
    turned, raw = math.radians(30), np.zeros((7, 7))
    for i in range(7):
        for j in range(7):
            x, y = j - 3, i - 3
            across, along = x * math.cos(turned) + y * math.sin(turned), -x * math.sin(turned) + y * math.cos(turned)
            bell = math.exp(-(across**2 + 0.36 * along**2) / (2 * 1.7**2))
            raw[i, j] = bell * math.cos(2 * math.pi * across / 5 + math.radians(40))
    found = gabor(7, **options)
    assert cosine(found, raw - raw.mean()) == pytest.approx(1.0)
    assert found.sum() == pytest.approx(0.0, abs=1e-12)
    assert found[found > 0].sum() == pytest.approx(1.0)
    assert np.allclose(gabor(9, angle=90), gabor(9, angle=0).T)


@pytest.mark.parametrize("angle", [0.0, 45.0, 90.0, 135.0])
def test_gabor_answers_most_to_stripes_of_its_own_direction_and_width(angle):
    y, x = np.mgrid[:40, :40]

    def stripes(degrees: float, wavelength: float) -> np.ndarray:
        turned = math.radians(degrees)
        return np.cos(2 * math.pi * (x * math.cos(turned) + y * math.sin(turned)) / wavelength)

    kernel = gabor(11, wavelength=4, angle=angle)
    answers = {
        (degrees, wavelength): float(np.abs(convolve(stripes(degrees, wavelength), kernel)).max())
        for degrees in (0.0, 45.0, 90.0, 135.0)
        for wavelength in (2.5, 4.0, 8.0)
    }
    assert max(answers, key=answers.__getitem__) == (angle, 4.0)


@pytest.mark.parametrize("family", ["edge", "prewitt", "sobel", "scharr", "line"])
def test_horizontal_kernels_find_what_lies_and_vertical_ones_what_stands(family):
    lying = np.zeros((9, 9))
    if family == "line":
        lying[4] = 1.0
    else:
        lying[5:] = 1.0
    horizontal, vertical = (KERNELS.build(f"{family}-{way}") for way in ("horizontal", "vertical"))
    assert convolve(lying, horizontal).max() >= 1
    assert not convolve(lying, vertical).any()
    assert not convolve(lying.T, horizontal).any()
    assert np.array_equal(convolve(lying.T, vertical), convolve(lying, horizontal).T)


def test_diagonal_kernels_answer_most_to_what_rises_to_the_right():
    y, x = np.mgrid[:9, :9]
    for name, rising in (("edge-diagonal", x + y > 8), ("sobel-diagonal", x + y > 8), ("line-diagonal", x + y == 8)):
        kernel = KERNELS.build(name)
        assert convolve(rising.astype(float), kernel)[3, 3] > 0 or convolve(rising.astype(float), kernel)[4, 4] > 0
        falling = rising[:, ::-1].astype(float)
        assert np.abs(convolve(rising.astype(float), kernel)).max() > np.abs(convolve(falling, kernel)).max()


def test_a_kernel_is_read_from_a_name_a_name_with_options_or_its_rows():
    assert np.array_equal(kernel_named("sobel-vertical")[1], KERNELS.build("sobel-vertical"))
    name, kernel = kernel_named("gabor:angle=45,wavelength=6.5,size=11")
    assert name == "gabor:angle=45,wavelength=6.5,size=11"
    assert np.array_equal(kernel, gabor(11, wavelength=6.5, angle=45))
    name, kernel = kernel_named("-1 0 1 / -2 0 2 / -1 0 1")
    assert name == "your own"
    assert np.array_equal(kernel, KERNELS.build("sobel-vertical"))


@pytest.mark.parametrize(
    ("text", "said", "mend"),
    [
        ("sobel-vertikal", "no kernel named 'sobel-vertikal'", "sobel-vertical"),
        ("gabor:angel=4", "no option 'angel'", "angle"),
        ("gabor:angle", "'angle' is no option with a number", "gabor:angle=45"),
        ("gabor:sigma=0", "sigma is 0", "above 0"),
        ("gaussian:size=99", "size is 99", "2 to 31"),
        ("gaussian:size=2.5", "size is 2.5", "whole"),
        (" / ".join(["1 " * 40] * 40), "40x40", "31x31"),
    ],
)
def test_a_kernel_that_makes_no_sense_is_refused_with_the_mend(text, said, mend):
    with pytest.raises(UsageError, match=said) as refused:
        kernel_named(text)
    assert mend in refused.value.mend
