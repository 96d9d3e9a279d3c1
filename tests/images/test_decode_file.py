"""Files as the audit reads them: once, with their hash, and of large JPEGs the luma alone."""

from __future__ import annotations

import hashlib
import sys

import numpy as np
import PIL
import pytest
from PIL import Image, features

from convsmith.images.decode import LUMA, UnreadableImage, as_array, decode, decode_file, decoder


def test_a_file_is_read_once_and_hashed_as_it_is(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)).save(path)
    read = decode_file(path)
    assert read.content == hashlib.sha256(path.read_bytes()).digest()
    assert (read.channels, read.forms) == (3, frozenset())
    assert np.array_equal(as_array(read.picture), decode(path))
    monkeypatch.setattr(sys.modules[decode_file.__module__], "HELD", 100)  # as a file of 300 MB would be
    streamed = decode_file(path)
    assert streamed.content == read.content
    assert np.array_equal(as_array(streamed.picture), as_array(read.picture))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}], ids=str)
@pytest.mark.parametrize("turned", [1, 6])
def test_where_luma_is_enough_a_jpeg_gives_its_own(tmp_path, options, turned):
    exif = Image.Exif()
    exif[0x0112] = turned
    noise = np.random.default_rng(0).integers(0, 256, (60, 70, 3), np.uint8)
    Image.fromarray(noise).resize((LUMA + 40, LUMA), Image.Resampling.BICUBIC).save(
        tmp_path / "a.jpg", exif=exif, **options
    )
    with Image.open(tmp_path / "a.jpg") as image:
        image.draft("YCbCr", image.size)
        luma = np.asarray(image)[..., 0]
    read = decode_file(tmp_path / "a.jpg", luma=True)
    assert (read.channels, read.forms) == (3, frozenset({"rotated"} if turned == 6 else ()))
    assert np.array_equal(as_array(read.picture)[..., 0], luma if turned == 1 else np.rot90(luma, -1))
    assert read.content == decode_file(tmp_path / "a.jpg").content


def test_what_is_small_or_grey_or_no_jpeg_or_picked_is_decoded_whole(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (LUMA, LUMA, 3), np.uint8))
    noise.save(tmp_path / "a.png")
    noise.resize((LUMA, LUMA - 1)).save(tmp_path / "b.jpg")
    noise.convert("L").save(tmp_path / "c.jpg")
    noise.convert("CMYK").save(tmp_path / "d.jpg")
    for name in ("a.png", "b.jpg", "c.jpg", "d.jpg"):
        spared, whole = decode_file(tmp_path / name, luma=True), decode_file(tmp_path / name)
        assert spared[1:] == whole[1:]
        assert np.array_equal(as_array(spared.picture), as_array(whole.picture))
    noise.save(tmp_path / "e.jpg")
    assert np.array_equal(decode_file(tmp_path / "e.jpg", (2,), luma=True).picture, decode(tmp_path / "e.jpg")[..., 2:])


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_a_jpeg_that_is_cut_short_is_refused_for_its_luma_too(tmp_path, kept):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (LUMA, LUMA, 3), np.uint8))
    noise.save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: int(kept * len(content))])
    reasons = []
    for luma in (True, False):
        with pytest.raises(UnreadableImage) as caught:
            decode_file(tmp_path / "a.jpg", luma=luma)
        reasons.append(caught.value.reason)
    assert reasons[0] == reasons[1]
    assert "cut short" in reasons[0]


def test_the_decoder_is_named_with_its_versions():
    assert f"Pillow {PIL.__version__} jpeg {features.version('libjpeg_turbo')}" in decoder()
