"""Pixels land where they should: by hand, by numpy, by torch's own rotations, and with their masks."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from convsmith.batches import Crop, Flip, Geometry, Keys, QuarterTurn, Rotation, Shift, VerticalFlip, Zoom, keys_of
from convsmith.errors import UsageError

NUMPY_MODE = {"reflect": "reflect", "zero": "constant", "replicate": "edge"}
LABELS = torch.zeros(1, dtype=torch.int64)


def random_images(n, channels, height, width):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, channels, height, width), dtype=np.uint8))


def smooth_images(n, size):
    """Waves that bilinear interpolation follows to within a grey level or two."""
    y, x = np.mgrid[:size, :size] / size
    waves = [127 + 60 * np.sin(4 * x + i) + 60 * np.cos(3 * y - i) for i in range(n)]
    return torch.from_numpy(np.array(waves, np.float32))[:, None]


def values(**parameters):
    return {name: np.array([value]) for name, value in parameters.items()}


def shifted(image, right, down, border):
    """The shift by hand: pad, then cut out."""
    _, height, width = image.shape
    reach = max(abs(right), abs(down), 1)
    padded = np.pad(image, ((0, 0), (reach, reach), (reach, reach)), mode=NUMPY_MODE[border])
    return padded[:, reach - down : reach - down + height, reach - right : reach - right + width]


@pytest.mark.parametrize("border", ["reflect", "zero", "replicate"])
@pytest.mark.parametrize(("channels", "height", "width"), [(1, 8, 8), (3, 5, 7)])
def test_a_shift_is_numpys_padding_and_cutting_bit_for_bit(border, channels, height, width):
    images = random_images(200, channels, height, width)
    shift = Shift(2, border)
    parameters = shift.draw(Keys(keys_of(0, 0, 200)))
    moved, _ = shift.apply(images, LABELS, parameters)
    assert moved.dtype == torch.uint8
    moves = list(zip(parameters["right"].astype(int), parameters["down"].astype(int), strict=True))
    assert set(moves) == set(itertools.product(range(-2, 3), repeat=2))
    for image, result, (right, down) in zip(images.numpy(), moved.numpy(), moves, strict=True):
        assert np.array_equal(result, shifted(image, right, down, border))


@pytest.mark.parametrize("border", ["reflect", "zero", "replicate"])
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_flips_and_shifts_in_any_order_are_each_done_in_turn(border, order):
    motions = [[Flip(), VerticalFlip(), Shift(2, border)][i] for i in order]
    images, keys = random_images(100, 3, 6, 7), Keys(keys_of(1, 0, 100), 4)
    geometry = Geometry(motions, 6, 7)
    assert geometry.exact
    together, _ = geometry.apply(images, LABELS, geometry.draw(keys))
    expected = images.numpy()
    for motion in motions:
        drawn = motion.draw(keys)
        if isinstance(motion, Shift):
            moves = zip(expected, drawn["right"].astype(int), drawn["down"].astype(int), strict=True)
            expected = np.array([shifted(image, right, down, border) for image, right, down in moves])
        else:
            axis = 3 if isinstance(motion, Flip) else 2
            expected = np.where(drawn["flipped"][:, None, None, None], np.flip(expected, axis), expected)
    assert np.array_equal(together.numpy(), expected)


@pytest.mark.parametrize("size", [5, 6])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_quarter_turn_is_torch_rot90_bit_for_bit(size, turns):
    images = random_images(3, 3, size, size)
    turned, masks = QuarterTurn().apply(images, images[:, 0].long(), {"turns": np.full(3, turns)})
    assert turned.dtype == torch.uint8
    assert torch.equal(turned, torch.rot90(images, turns, (2, 3)))
    assert torch.equal(masks, torch.rot90(images[:, 0].long(), turns, (1, 2)))


def test_the_four_turns_are_equally_likely_and_the_two_of_a_picture_that_is_not_square():
    turn = QuarterTurn()
    turns = turn.draw(Keys(keys_of(0, 0, 8000), 1))["turns"]
    assert np.abs(np.bincount(turns, minlength=4) / 8000 - 0.25).max() < 0.0194  # four deviations
    images = random_images(1, 1, 4, 6).expand(8000, 1, 4, 6)
    turned = turn.apply(images, LABELS, {"turns": turns})[0]
    same, half = ((turned == picture).flatten(1).all(1) for picture in (images, images.flip(2, 3)))
    assert torch.all(same | half)
    assert abs(half.float().mean() - 0.5) < 0.02


@pytest.mark.parametrize("border", ["reflect", "zero", "replicate"])
@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_turns_flips_and_shifts_in_any_order_are_each_done_in_turn(border, order):
    motions = [[Flip(), VerticalFlip(), Shift(2, border), QuarterTurn()][i] for i in order]
    images, keys = random_images(80, 3, 6, 6), Keys(keys_of(1, 0, 80), 4)
    geometry = Geometry(motions, 6, 6)
    assert geometry.exact
    expected = images
    for motion in motions:
        expected = motion.apply(expected, LABELS, motion.draw(keys))[0]
    assert torch.equal(geometry.apply(images, LABELS, geometry.draw(keys))[0], expected)


@pytest.mark.parametrize("size", [4, 8, 11])
def test_a_crop_of_a_size_of_its_own_is_resampled_once_to_that_size(size):
    """The whole picture as a crop: torch's own bilinear resampling, away from the border, where rules differ."""
    images, keys = random_images(6, 3, 8, 8), Keys(keys_of(0, 0, 6))
    masks = torch.arange(8).div(2, rounding_mode="floor").expand(6, 8, 8).contiguous()
    geometry = Geometry([Crop(scale=(1.0, 1.0), ratio=(1.0, 1.0), size=size)], 8, 8)
    moved, labels = geometry.apply(images, masks, geometry.draw(keys))
    expected = F.interpolate(images.float(), size=(size, size), mode="bilinear", align_corners=False)
    assert moved.shape == (6, 3, size, size)
    assert torch.allclose(moved[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], atol=1e-3)
    assert labels.shape == (6, size, size)
    mirrored = Geometry([Flip(p=1.0), Crop(scale=(1.0, 1.0), ratio=(1.0, 1.0), size=size)], 8, 8)
    assert torch.allclose(mirrored.apply(images, LABELS, mirrored.draw(keys))[0], moved.flip(3), atol=1e-3)


def test_a_quarter_turn_among_interpolating_motions_is_the_same_turn():
    images, keys = random_images(50, 1, 9, 9), Keys(keys_of(0, 0, 50))
    exact, general = QuarterTurn(), Geometry([QuarterTurn(), Rotation(0)], 9, 9)
    expected = exact.apply(images, LABELS, exact.draw(keys))[0].float()
    assert not torch.equal(expected, images.float())
    assert torch.allclose(general.apply(images, LABELS, general.draw(keys))[0], expected, atol=2e-3)


def test_a_flip_is_torch_flip():
    images = random_images(4, 3, 5, 6)
    assert torch.equal(Flip(p=1).apply(images, LABELS, {"flipped": np.ones(4, bool)})[0], images.flip(3))
    assert torch.equal(VerticalFlip(p=1).apply(images, LABELS, {"flipped": np.ones(4, bool)})[0], images.flip(2))


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_rotation_by_right_angles_is_torch_rot90(size, turns):
    images = random_images(2, 3, size, size)
    turned, _ = Rotation(180).apply(images, LABELS, {"degrees": np.full(2, 90.0 * turns)})
    expected = torch.rot90(images, turns, (2, 3)).float()
    assert torch.allclose(turned, expected, atol=1e-2)


@pytest.mark.parametrize("degrees", [20.0, -35.0])
def test_a_rotation_is_scipys(degrees):
    image = smooth_images(1, 48)
    turned = Rotation(90, "replicate").apply(image, LABELS, values(degrees=degrees))[0][0, 0].numpy()
    expected = ndimage.rotate(image[0, 0].numpy(), degrees, reshape=False, order=1, mode="nearest")
    assert np.abs(turned - expected).max() < 0.05


@pytest.mark.parametrize("border", ["reflect", "zero", "replicate"])
def test_the_interpolating_path_agrees_with_the_exact_one_where_both_can(border):
    images, keys = random_images(50, 1, 9, 6), Keys(keys_of(0, 0, 50))
    motions = [Flip(), Shift(2, border)]
    exact = Geometry(motions, 9, 6)
    general = Geometry([*motions, Rotation(0, border)], 9, 6)
    assert exact.exact
    assert not general.exact
    expected = exact.apply(images, LABELS, exact.draw(keys))[0].float()
    assert torch.allclose(general.apply(images, LABELS, general.draw(keys))[0], expected, atol=2e-3)


def test_composed_motions_equal_the_motions_one_after_the_other():
    motions = [Rotation(25, "replicate"), Zoom((1.1, 1.4), "replicate"), Flip(), Shift(3, "replicate"), Crop((0.5, 1))]
    images, keys = smooth_images(20, 64), Keys(keys_of(0, 0, 20), 2)
    geometry = Geometry(motions, 64, 64)
    together = geometry.apply(images, LABELS, geometry.draw(keys))[0]
    in_turn = images
    for motion in motions:
        in_turn = motion.apply(in_turn, LABELS, motion.draw(keys))[0]
    middle = (..., slice(16, 48), slice(16, 48))  # away from borders, which each step would treat anew
    assert (together[middle] - in_turn[middle]).abs().max() < 1.0
    assert (together[middle] - images[middle]).abs().max() > 20


def test_a_zoom_worked_by_hand():
    image = torch.tensor([[[[0.0, 10.0, 20.0, 30.0, 40.0]]]])
    zoomed = Zoom((0.5, 2)).apply(image, LABELS, values(factor=2.0))[0]
    assert torch.allclose(zoomed, torch.tensor([[[[10.0, 15.0, 20.0, 25.0, 30.0]]]]), atol=1e-4)


def test_a_crop_worked_by_hand():
    image = torch.arange(8.0).expand(1, 1, 8, 8).clone() * 10  # the right half has its centre at 5.5
    cropped = Crop().apply(image, LABELS, values(width=0.5, height=1.0, x=0.25, y=0.0))[0]
    expected = 55 + 5 * (torch.arange(8) - 3.5)
    assert torch.allclose(cropped[0, 0, 0, :-1], expected[:-1], atol=1e-3)


def test_crops_stay_inside_the_picture_and_have_the_areas_asked_for():
    drawn = Crop((0.3, 0.6), (0.9, 1.1)).draw(Keys(keys_of(0, 0, 2000)))
    area = drawn["width"] * drawn["height"]
    assert 0.3 <= area.min() < 0.305
    assert 0.595 < area.max() <= 0.6
    for side, place in (("width", "x"), ("height", "y")):
        assert np.all(np.abs(drawn[place]) + drawn[side] / 2 <= 0.5 + 1e-12)


def test_geometry_is_equivariant_to_flips():
    images = random_images(3, 1, 10, 10)
    turn = Rotation(90)
    clockwise, _ = turn.apply(images.flip(3), LABELS, {"degrees": np.full(3, -17.0)})
    counter, _ = turn.apply(images, LABELS, {"degrees": np.full(3, 17.0)})
    assert torch.allclose(clockwise.flip(3), counter, atol=1e-2)


@pytest.mark.parametrize(
    "motions",
    [[Flip(), QuarterTurn(), Shift(2)], [VerticalFlip(), Rotation(30), Zoom()], [Crop(), Flip()]],
    ids=["exact", "turn", "crop"],
)
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8])
def test_masks_move_with_their_images(motions, dtype):
    masks = torch.zeros(40, 24, 24, dtype=dtype)
    masks[:, 4:14, 6:18] = 7
    images = (masks[:, None] * 30).to(torch.uint8)
    geometry = Geometry(motions, 24, 24)
    moved, moved_masks = geometry.apply(images, masks, geometry.draw(Keys(keys_of(0, 0, 40))))
    assert moved_masks.dtype == dtype
    assert set(moved_masks.unique().tolist()) == {0, 7}
    from_image = moved[:, 0].float() > 105  # half of 210: where bilinear says "inside"
    agree = (from_image == (moved_masks == 7)).float().mean()
    assert agree == 1 if geometry.exact else agree > 0.97
    assert not torch.equal(moved_masks, masks)


def test_labels_and_soft_labels_are_left_alone():
    images = random_images(8, 1, 8, 8)
    for labels in (torch.arange(8), torch.rand(8, 8), torch.rand(8, 3, 3)):
        assert Rotation(30).apply(images, labels, {"degrees": np.full(8, 20.0)})[1] is labels


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Geometry([Shift(1, "zero"), Rotation(5)], 8, 8), "different borders .*shift: zero, rotation: reflect"),
        (lambda: Geometry([Shift(8)], 8, 16), "8x16 are shifted by up to 8 .*at most 2 pixels"),
        (lambda: Shift(-1), "pixels is -1"),
        (lambda: Shift(1.5), "pixels is 1.5, but must be a whole number"),
        (lambda: Shift(1, "wrap"), "border is 'wrap'.*reflect, zero, replicate"),
        (lambda: Flip(1.5), r"p is 1.5, but must be in \[0, 1\]"),
        (lambda: VerticalFlip(-0.5), r"p is -0.5"),
        (lambda: QuarterTurn(2.0), "p is 2.0"),
        (lambda: Rotation(270), "degrees is 270"),
        (lambda: Zoom((1.2, 0.8)), r"factor is \(1.2, 0.8\)"),
        (lambda: Crop(scale=(0.0, 1.0)), "scale"),
        (lambda: Crop(ratio=(0.0, 1.0)), "ratio"),
        (lambda: Crop(size=0), "size"),
        (lambda: Geometry([Crop(size=8)], 12, 16), "size is 8, which is for square images, but these are 12x16"),
    ],
)
def test_impossible_motions_are_refused_with_the_values(make, says):
    with pytest.raises(UsageError, match=says):
        make()
