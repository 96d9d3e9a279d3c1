"""The kernel lab's arithmetic: against hand-worked figures, scipy and torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch.nn import functional

from convsmith.errors import UsageError
from convsmith.networks.kernels.filtering import (
    PADDINGS,
    convolve,
    is_numbers,
    margins,
    numbers,
    padded,
    pool_window,
    pooled,
    window,
)

IMAGE = numbers("10 20 15 25 30 / 40 50 60 32 18 / 25 33 45 60 80 / 15 20 30 40 50 / 40 30 25 15 10")
AROUND = numbers("-1 -1 -1 / -1 8 -1 / -1 -1 -1")
NINE = numbers("1 2 3 / 4 5 6 / 7 8 9")
SCIPY = {"zero": "constant", "same": "constant", "reflect": "mirror", "replicate": "nearest", "circular": "wrap"}
TORCH = {"zero": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}


def test_the_figure_of_the_kernel_lab_is_reproduced():
    assert convolve(IMAGE, AROUND).tolist() == [[152, 200, -77], [-21, 35, 125], [-83, -28, 5]]


@pytest.mark.parametrize(
    ("padding", "expected"),
    [
        ("reflect", "5 4 5 6 5 / 2 1 2 3 2 / 5 4 5 6 5 / 8 7 8 9 8 / 5 4 5 6 5"),
        ("replicate", "1 1 2 3 3 / 1 1 2 3 3 / 4 4 5 6 6 / 7 7 8 9 9 / 7 7 8 9 9"),
        ("circular", "9 7 8 9 7 / 3 1 2 3 1 / 6 4 5 6 4 / 9 7 8 9 7 / 3 1 2 3 1"),
        ("zero", "0 0 0 0 0 / 0 1 2 3 0 / 0 4 5 6 0 / 0 7 8 9 0 / 0 0 0 0 0"),
        ("same", "0 0 0 0 0 / 0 1 2 3 0 / 0 4 5 6 0 / 0 7 8 9 0 / 0 0 0 0 0"),
        ("valid", "1 2 3 / 4 5 6 / 7 8 9"),
    ],
)
def test_each_padding_by_one_is_as_worked_by_hand(padding, expected):
    assert padded(NINE, 1, padding).tolist() == numbers(expected).tolist()


def test_the_figures_of_pooling_are_reproduced():
    four = numbers("3 7 / 4 9")
    assert pooled(four, "max").tolist() == [[9]]
    assert pooled(four, "average").tolist() == [[5.75]]


@pytest.mark.parametrize("padding", list(SCIPY))
@pytest.mark.parametrize("dilation", [1, 2])
def test_every_padding_agrees_with_scipy(padding, dilation):
    random = np.random.default_rng(3)
    image, kernel = random.normal(size=(9, 11)), random.normal(size=(3, 5))
    spread = np.zeros((dilation * 2 + 1, dilation * 4 + 1))
    spread[::dilation, ::dilation] = kernel
    expected = ndimage.correlate(image, spread, mode=SCIPY[padding])
    assert np.allclose(convolve(image, kernel, padding=padding, dilation=dilation), expected)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(5, 12), width=st.integers(5, 12), tall=st.integers(1, 4), wide=st.integers(1, 4),
    stride=st.integers(1, 3), dilation=st.integers(1, 2), padding=st.sampled_from(["valid", *TORCH]),
    channels=st.sampled_from([None, 3]), seed=st.integers(0, 99),
)  # fmt: skip
def test_any_convolution_agrees_with_torch(height, width, tall, wide, stride, dilation, padding, channels, seed):
    random = np.random.default_rng(seed)
    image = random.normal(size=(height, width) if channels is None else (height, width, channels))
    kernel = random.normal(size=(tall, wide))
    made = torch.from_numpy(image[None, None] if channels is None else image.transpose(2, 0, 1)[:, None])
    if padding != "valid":
        spans = [dilation * (size - 1) for size in (wide, tall)]
        sides = [side for span in spans for side in (span // 2, span - span // 2)]
        if padding == "reflect" and (max(sides[:2]) >= width or max(sides[2:]) >= height):
            return
        made = functional.pad(made, sides, mode=TORCH[padding])
    if made.shape[2] <= dilation * (tall - 1) or made.shape[3] <= dilation * (wide - 1):
        with pytest.raises(UsageError, match="spans"):
            convolve(image, kernel, padding=padding, stride=stride, dilation=dilation)
        return
    expected = functional.conv2d(made, torch.from_numpy(kernel)[None, None], stride=stride, dilation=dilation)[:, 0]
    expected = expected[0].numpy() if channels is None else expected.numpy().transpose(1, 2, 0)
    found = convolve(image, kernel, padding=padding, stride=stride, dilation=dilation)
    assert found.shape == expected.shape
    assert np.allclose(found, expected)


def test_same_at_stride_one_agrees_with_torch_and_at_others_has_the_size_over_the_stride():
    image, kernel = np.random.default_rng(0).normal(size=(7, 8)), np.random.default_rng(1).normal(size=(5, 3))
    expected = functional.conv2d(
        torch.from_numpy(image)[None, None], torch.from_numpy(kernel)[None, None], padding="same"
    )
    assert np.allclose(convolve(image, kernel, padding="same"), expected[0, 0].numpy())
    assert margins(6, 3, "same", stride=2) == (0, 1)  # 6 px by 3 taps every 2: windows at 0, 2, 4 need one px more
    assert margins(5, 3, "same", stride=2) == (1, 1)
    for size in range(3, 12):
        for stride in range(1, 4):
            made = convolve(np.ones((size, size)), np.ones((3, 3)), padding="same", stride=stride)
            assert made.shape == (-(-size // stride), -(-size // stride))


@pytest.mark.parametrize("kind", ["max", "average"])
@pytest.mark.parametrize(("size", "stride"), [(2, None), (3, 2), (2, 1), (3, 4)])
def test_pooling_agrees_with_torch(kind, size, stride):
    image = np.random.default_rng(5).normal(size=(9, 8, 3))
    pool = functional.max_pool2d if kind == "max" else functional.avg_pool2d
    expected = pool(torch.from_numpy(image).permute(2, 0, 1)[None], size, stride)[0].permute(1, 2, 0).numpy()
    found = pooled(image, kind, size, stride)
    assert np.allclose(found, expected)
    seen, result = pool_window(image, kind, 1, 0, size, stride)
    assert seen.shape == (size, size, 3)
    assert np.allclose(result, expected[1, 0])
    assert np.allclose(seen.max(axis=(0, 1)) if kind == "max" else seen.mean(axis=(0, 1)), result)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("channels", [(), (3,)])
def test_a_window_shows_the_sum_that_the_convolution_makes_at_every_place(padding, channels):
    image = np.random.default_rng(2).integers(0, 255, size=(6, 7, *channels)).astype(float)
    kernel = numbers("1 -2 0 / 3 1 1 / 0 0 -5")
    options = {"padding": padding, "stride": 2, "dilation": 2}
    output = convolve(image, kernel, **options)
    for row, column in np.ndindex(output.shape[:2]):
        seen = window(image, kernel, row, column, **options)
        assert np.array_equal(seen.total, output[row, column])
        assert np.array_equal(seen.products.sum(axis=(0, 1)), seen.total)
        for i, y in enumerate(seen.rows):
            for j, x in enumerate(seen.columns):
                if 0 <= y < 6 and 0 <= x < 7:
                    assert np.array_equal(seen.patch[i, j], image[y, x])
                elif padding in {"zero", "same"}:
                    assert not np.any(seen.patch[i, j])


def test_a_window_of_the_figure_holds_its_patch_products_and_sum():
    seen = window(IMAGE, AROUND, 0, 1)
    assert seen.patch.tolist() == [[20, 15, 25], [50, 60, 32], [33, 45, 60]]
    assert seen.products.tolist() == [[-20, -15, -25], [-50, 480, -32], [-33, -45, -60]]
    assert (seen.total, seen.rows.tolist(), seen.columns.tolist()) == (200, [0, 1, 2], [1, 2, 3])


@pytest.mark.parametrize(
    ("call", "said", "mend"),
    [
        (lambda: convolve(NINE, AROUND, dilation=2), "spans 5 px, but the picture is 3x3", "zero"),
        (lambda: convolve(NINE, np.ones((7, 7)), padding="reflect"), "needs 3 px", "replicate"),
        (lambda: convolve(NINE, AROUND, stride=0), "stride of 0", "1 or more"),
        (lambda: convolve(NINE, AROUND, padding="mirror"), "no padding named 'mirror'", "reflect"),
        (lambda: window(IMAGE, AROUND, 3, 0), "3x3 and has no row 3", "0 to 2"),
        (lambda: window(IMAGE, AROUND, 0, -1), "column -1", "0 to 2"),
        (lambda: pooled(NINE, "max", 4), "4x4 is larger", "3 px"),
        (lambda: pooled(NINE, "median"), "no pooling named", "average"),
        (lambda: pool_window(NINE, "max", 1, 0), "1x1 and has no row 1", "0 to 0"),
        (lambda: numbers("1 2 / 3"), "rows of 2, 1", "slash"),
        (lambda: numbers("1 x"), "no number", "slash"),
        (lambda: numbers("1,,2"), "no number", "slash"),
        (lambda: numbers("1 inf"), "not finite", "inf"),
        (lambda: numbers("  "), "no numbers", "slash"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_numbers_and_the_mend(call, said, mend):
    with pytest.raises(UsageError, match=said) as refused:
        call()
    assert mend in refused.value.mend


def test_rows_are_told_from_names():
    assert is_numbers("-1 0 1 / 2 2 2")
    assert is_numbers("3")
    assert is_numbers("1,2\n3,4")
    assert not is_numbers("sobel-vertical")
    assert not is_numbers("digits:7")
    assert not is_numbers("nan")
    assert not is_numbers("")
    assert numbers("1, 2\n3, 4").tolist() == numbers("1 2 / 3 4").tolist()
