"""Colour, erasing and normalisation against hand-worked pixels and Pillow."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from convsmith.batches import Colour, Erasing, Keys, Normalize, keys_of
from convsmith.errors import UsageError

LABELS = torch.zeros(1, dtype=torch.int64)


def factors(brightness=1.0, contrast=1.0, saturation=1.0):
    return {
        "brightness": np.array([brightness]),
        "contrast": np.array([contrast]),
        "saturation": np.array([saturation]),
    }


def pixel(image, **changes):
    return Colour().apply(image, LABELS, factors(**changes))[0]


def test_colour_of_a_pixel_worked_by_hand():
    image = torch.tensor([100.0, 50.0, 200.0]).view(1, 3, 1, 1)  # grey: 29.9 + 29.35 + 22.8 = 82.05
    assert torch.allclose(pixel(image, brightness=0.5).flatten(), torch.tensor([50.0, 25.0, 100.0]))
    assert torch.allclose(pixel(image, saturation=0.0).flatten(), torch.full((3,), 82.05))
    assert torch.allclose(pixel(image, contrast=0.5).flatten(), torch.tensor([91.025, 66.025, 141.025]))
    assert torch.allclose(pixel(image, brightness=2.0).flatten(), torch.tensor([200.0, 100.0, 255.0]))  # cut at 255


@pytest.mark.parametrize("factor", [0.6, 0.9, 1.2])
@pytest.mark.parametrize(
    ("name", "enhance"),
    [("brightness", ImageEnhance.Brightness), ("contrast", ImageEnhance.Contrast), ("saturation", ImageEnhance.Color)],
)
def test_each_colour_change_is_pillows_within_rounding(name, enhance, factor):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    expected = np.asarray(enhance(Image.fromarray(pixels)).enhance(factor)).astype(float)
    got = pixel(torch.from_numpy(pixels).permute(2, 0, 1)[None], **{name: factor})[0].permute(1, 2, 0).numpy()
    assert np.abs(got - expected).max() < 1.6  # Pillow rounds the grey, its mean, and the result


def test_colour_changes_compose_as_brightness_then_contrast_then_saturation():
    image = torch.from_numpy(np.random.default_rng(0).uniform(80, 160, (1, 3, 6, 6)))  # so that nothing is cut
    together = pixel(image, brightness=1.1, contrast=0.8, saturation=1.3)
    in_turn = pixel(pixel(pixel(image, brightness=1.1), contrast=0.8), saturation=1.3)
    assert torch.allclose(together, in_turn)
    assert together.dtype == torch.float64


def test_grey_pictures_have_brightness_and_contrast_only():
    image = torch.tensor([[[[50.0, 150.0]]]])
    assert torch.allclose(pixel(image, contrast=0.5, saturation=0.0), torch.tensor([[[[75.0, 125.0]]]]))


def test_a_rectangle_worked_by_hand():
    image = torch.arange(32, dtype=torch.uint8).view(1, 2, 4, 4)
    parameters = {
        "size": np.array([[0.5, 0.25]]),  # 2 rows, 1 column
        "place": np.array([[0.999, 0.3]]),  # the last of 3 places down, the second of 4 across
        "colour": np.array([[200.0, 100.0, 0.0]]),
    }
    erased, _ = Erasing().apply(image, LABELS, parameters)
    expected = image.clone()
    expected[0, 0, 2:4, 1] = 200
    expected[0, 1, 2:4, 1] = 100
    assert torch.equal(erased, expected)


def test_erased_areas_and_frequencies_are_those_asked_for():
    white = torch.full((2000, 1, 40, 40), 255, dtype=torch.uint8)
    erasing = Erasing(p=0.3, area=(0.1, 0.2), ratio=(0.5, 2.0), fill="zero")
    erased, _ = erasing.apply(white, LABELS, erasing.draw(Keys(keys_of(0, 0, 2000))))
    share = (erased == 0).float().mean((1, 2, 3)).numpy()
    touched = share > 0
    assert abs(touched.mean() - 0.3) < 0.04
    assert share[touched].min() > 0.09
    assert share[touched].max() < 0.21
    assert abs(share[touched].mean() - 0.15) < 0.005
    centre = (erased == 0).float().mean(0)[0]
    assert abs(centre.mean(0) - centre.mean(0).flip(0)).max() < 0.03  # no side is preferred


def test_normalisation_worked_by_hand():
    images = torch.tensor([[0, 255], [51, 102]], dtype=torch.uint8).view(1, 2, 1, 2)
    normalized = Normalize((0.5, 0.2), (0.25, 0.1))(images)
    assert normalized.dtype == torch.float32
    assert torch.allclose(normalized.flatten(), torch.tensor([-2.0, 2.0, 0.0, 2.0]), atol=1e-6)


def test_normalised_bytes_are_within_rounding_of_float64_for_every_byte():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    expected = (np.arange(256) / 255 - 0.2860) / 0.3530
    assert np.abs(Normalize((0.2860,), (0.3530,))(images).numpy().ravel() - expected).max() < 5e-7
    for dtype in (torch.float32, torch.float64):
        normalized = Normalize((0.2860,), (0.3530,))(images.to(dtype))
        assert normalized.dtype == torch.float32
        assert np.abs(normalized.numpy().ravel() - expected).max() < 5e-7


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Normalize((0.5,), (0.0,)), "std above 0"),
        (lambda: Normalize((0.5,), (0.2, 0.2)), "each channel needs both"),
        (lambda: Normalize((0.5,), (0.2,))(torch.zeros(1, 3, 2, 2)), "3 channels, but mean and std are given for 1"),
        (lambda: Colour(brightness=2), "brightness is 2"),
        (lambda: Erasing(p=2), "p is 2"),
        (lambda: Erasing(area=(0.5, 0.1)), r"area is \(0.5, 0.1\)"),
        (lambda: Erasing(ratio=(0.0, 1)), "ratio"),
        (lambda: Erasing(fill="noise"), "fill is 'noise'.*random, zero"),
    ],
)
def test_impossible_values_are_refused(make, says):
    with pytest.raises(UsageError, match=says):
        make()
