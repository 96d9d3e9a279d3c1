"""What a network is shown of a picture: size, fit, channels, the range of deep values; and how pixels are hashed."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from convsmith.errors import DataError, UsageError
from convsmith.images.fitting import evaluation_pixels, value_range
from convsmith.images.hashes import pixel_hash

ARRAYS = arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3])))


@given(ARRAYS, st.sampled_from(["crop", "pad", "stretch"]), st.sampled_from([1, 3]), st.integers(1, 24))
def test_evaluation_pixels_always_have_the_shape_asked_for(image, fit, channels, size):
    pixels = evaluation_pixels(image, size=size, fit=fit, channels=channels)
    assert pixels.shape == (size, size, channels)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous


@given(ARRAYS, st.sampled_from(["crop", "pad", "stretch"]), st.integers(2, 16))
def test_mirroring_commutes_with_resizing(image, fit, size):
    if fit == "pad" and (size - max(1, round(image.shape[1] * size / max(image.shape[:2])))) % 2:
        return  # an odd margin cannot be the same on both sides
    channels = image.shape[2]
    mirrored = evaluation_pixels(image[:, ::-1], size=size, fit=fit, channels=channels)
    straight = evaluation_pixels(image, size=size, fit=fit, channels=channels)
    assert np.abs(mirrored.astype(int) - straight[:, ::-1]).max() <= 1  # Pillow's fixed-point rounding


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_that_fits_keeps_its_bytes(channels):
    image = np.random.default_rng(0).integers(0, 256, (8, 8, channels), np.uint8)
    for fit in ("crop", "pad", "stretch"):
        assert np.array_equal(evaluation_pixels(image, size=8, fit=fit, channels=channels), image)


def test_crop_keeps_the_centre_pad_keeps_all_and_stretch_distorts():
    image = np.zeros((10, 30, 1), np.uint8)
    image[:, 10:20] = 200
    assert (evaluation_pixels(image, size=10, fit="crop", channels=1) == 200).all()
    padded = evaluation_pixels(image + 55, size=30, fit="pad", channels=1)
    assert (padded[:10] == 0).all()
    assert (padded[20:] == 0).all()
    assert (padded[10:20, :, 0] == image[..., 0] + 55).all()
    assert evaluation_pixels(image, size=30, fit="stretch", channels=1)[:, 15].min() == 200


def test_reduction_averages_instead_of_picking():
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))[..., None]
    pixels = evaluation_pixels(stripes, size=8, fit="stretch", channels=1)
    assert np.abs(pixels[:, 1:-1].astype(int) - 127.5).max() < 12


def test_grey_is_repeated_and_colour_becomes_luma():
    grey = np.arange(16, dtype=np.uint8).reshape(4, 4, 1)
    assert np.array_equal(evaluation_pixels(grey, size=4, fit="crop", channels=3), np.repeat(grey, 3, axis=2))
    colours = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)
    luma = evaluation_pixels(colours, size=2, fit="crop", channels=1).ravel()
    assert np.abs(luma - 255 * np.array([0.299, 0.587, 0.114, 1])).max() <= 1  # ITU-R BT.601


@pytest.mark.parametrize("channels", [1, 3])
def test_keep_takes_the_centre_of_the_shorter_side(channels):
    image = np.random.default_rng(0).integers(0, 256, (40, 60, channels), np.uint8)
    kept = evaluation_pixels(image, size=20, fit="crop", channels=channels, keep=0.5)
    assert np.array_equal(kept, image[10:30, 20:40])  # a box of whole pixels, not scaled: its own bytes
    square = image[:20, :20]
    inner = evaluation_pixels(square, size=20, fit="crop", channels=channels, keep=0.9)
    box = Image.fromarray(square.squeeze()).resize((20, 20), Image.Resampling.BICUBIC, box=(1, 1, 19, 19))
    assert np.array_equal(inner.squeeze(), np.asarray(box))


@given(ARRAYS, st.sampled_from(["crop", "pad", "stretch"]), st.integers(1, 24))
def test_to_keep_all_and_to_give_no_range_changes_no_byte(image, fit, size):
    plain = evaluation_pixels(image, size=size, fit=fit, channels=image.shape[2])
    said = evaluation_pixels(image, size=size, fit=fit, channels=image.shape[2], keep=1.0, range=None)
    assert plain.tobytes() == said.tobytes()


def test_a_keep_that_makes_no_sense_is_a_usage_error():
    image = np.zeros((4, 4, 1), np.uint8)
    for keep in (0, -1, 1.01, float("nan")):
        with pytest.raises(UsageError, match=r"image\.keep"):
            evaluation_pixels(image, size=2, fit="crop", channels=1, keep=keep)
    for fit in ("pad", "stretch"):
        with pytest.raises(UsageError, match=f"fit {fit}"):
            evaluation_pixels(image, size=2, fit=fit, channels=1, keep=0.9)


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_deep_values_are_scaled_by_the_range_before_resizing(kind):
    image = np.array([[0, 100, 149, 150, 200, 60_000]], kind).repeat(6, axis=0)[..., None]
    pixels = evaluation_pixels(image, size=6, fit="crop", channels=1, range=(100, 200))
    by_hand = [0, 0, round(49 / 100 * 255), round(0.5 * 255), 255, 255]
    assert pixels[0, :, 0].tolist() == by_hand
    scaled = np.array(by_hand, np.uint8)[None].repeat(6, axis=0)[..., None]
    smaller = evaluation_pixels(image, size=3, fit="crop", channels=3, range=(100, 200))
    assert np.array_equal(smaller, evaluation_pixels(scaled, size=3, fit="crop", channels=3))


def test_deep_values_without_a_range_are_refused_with_the_mend():
    with pytest.raises(DataError) as caught:
        evaluation_pixels(np.zeros((2, 2, 1), np.uint16), size=2, fit="crop", channels=1)
    assert "--set image.range=[LOW,HIGH]" in caught.value.mend
    for limits in ((5, 5), (6, 5), (0, float("inf"))):
        with pytest.raises(UsageError, match=r"image\.range"):
            evaluation_pixels(np.zeros((2, 2, 1), np.uint16), size=2, fit="crop", channels=1, range=limits)


@given(arrays(np.uint16, st.integers(1, 3000), elements=st.integers(0, 65_535)))
def test_the_range_is_the_exact_percentiles_of_all_pixels_together(values):
    halves = [half.reshape(-1, 1, 1) for half in np.array_split(values, 2) if half.size]
    low, high = value_range([*halves, np.zeros((3, 3, 1), np.uint8)])
    ordered, count = np.sort(values).tolist(), values.size  # numpy's own percentile takes 0.999 * 3000 for a bit more
    assert low == ordered[-(-count // 1000) - 1]
    assert high == max(ordered[-(-999 * count // 1000) - 1], low + 1)


def test_a_range_needs_16_bit_pixels():
    with pytest.raises(DataError, match="no 16-bit picture"):
        value_range([np.zeros((2, 2, 1), np.uint8)])


def test_the_hash_tells_types_apart():
    hashes = {pixel_hash(np.zeros((2, 2, 1), kind)) for kind in (np.uint8, np.uint16, np.float32)}
    hashes.add(pixel_hash(np.zeros((2, 4, 1), np.uint8)))
    assert len(hashes) == 4
    image = np.arange(4, dtype=np.uint16).reshape(2, 2, 1)
    by_hand = struct.pack("<3I", 2, 2, 1) + b"<u2" + struct.pack("<4H", 0, 1, 2, 3)
    assert pixel_hash(image) == pixel_hash(image.astype(">u2")) == hashlib.sha256(by_hand).digest()


def test_an_unknown_fit_or_a_wrong_array_is_refused():
    with pytest.raises(ValueError, match="expected crop, pad or stretch"):
        evaluation_pixels(np.zeros((4, 4, 1), np.uint8), size=2, fit="squash", channels=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"expected uint8 \[H, W, 1\]"):
        evaluation_pixels(np.zeros((4, 4), np.uint8), size=2, fit="crop", channels=1)


def test_the_hash_is_the_one_that_is_documented_and_tells_shapes_apart():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    by_hand = hashlib.sha256(bytes([2, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]) + bytes(range(12))).digest()
    assert pixel_hash(image) == by_hand
    assert pixel_hash(image.reshape(4, 1, 3)) != by_hand
    assert pixel_hash(np.asfortranarray(image)) == by_hand
