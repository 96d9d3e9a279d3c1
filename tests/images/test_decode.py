"""What a picture's pixels are, by every rule that `decode` declares."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from convsmith.images.decode import (
    FORMATS,
    PIXEL_CAP,
    UnreadableImage,
    decode,
    evaluation_pixels,
    pixel_hash,
)

LOSSLESS = [
    ("PNG", "RGB"),
    ("PNG", "L"),
    ("BMP", "RGB"),
    ("BMP", "L"),
    ("TIFF", "RGB"),
    ("TIFF", "L"),
    ("PPM", "RGB"),
    ("PPM", "L"),
]
ARRAYS = arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3])))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def noise(mode: str = "RGB", size: tuple[int, int] = (13, 9)) -> Image.Image:
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, shape, np.uint8))


def huge_png(width: int, height: int) -> bytes:
    """A header that promises more than there is, by hand."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(("kind", "mode"), LOSSLESS)
def test_a_lossless_file_gives_the_pixels_that_were_saved(kind, mode):
    image = noise(mode)
    expected = np.asarray(image).reshape(9, 13, -1)
    assert np.array_equal(decode(encoded(image, kind)), expected)


def test_the_same_picture_as_file_bytes_or_opened_image_gives_the_same_hash(paint):
    path = paint("one.png")
    image = decode(path)
    assert pixel_hash(image) == pixel_hash(decode(path.read_bytes())) == pixel_hash(decode(Image.open(path)))
    assert pixel_hash(image) == pixel_hash(decode(str(path)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_exif_orientation_brings_the_picture_upright(orientation, kind):
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :16] = (255, 0, 0)
    upright[16:, 32:] = (0, 0, 255)
    # how a camera held so stores it: the inverse of what the tag asks a viewer to do (Exif 2.3, tag 274)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    shown = decode(encoded(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, **options))
    assert shown.shape == upright.shape
    assert np.abs(shown.astype(int) - upright).mean() < 3


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("block", [b"II*\0\xff\xff\xff\xff", b"neither order of bytes"])
def test_a_damaged_exif_block_leaves_the_pixels_alone(block):
    plain = decode(encoded(noise(), "PNG"))
    assert np.array_equal(decode(encoded(noise(), "PNG", exif=b"Exif\0\0" + block)), plain)


def test_grey_stays_one_channel_and_everything_else_becomes_three():
    colour = noise()
    assert decode(encoded(noise("L"), "JPEG")).shape == (9, 13, 1)
    assert decode(encoded(noise("L").convert("1"), "PNG")).shape == (9, 13, 1)
    assert decode(encoded(noise("L").convert("LA"), "PNG")).shape == (9, 13, 1)
    for image, kind in [(colour.convert("P"), "PNG"), (colour.convert("P"), "GIF"), (colour.convert("CMYK"), "TIFF")]:
        assert decode(encoded(image, kind)).shape == (9, 13, 3)


def test_one_bit_is_black_and_white():
    image = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    assert decode(encoded(image, "PNG")).ravel().tolist() == [0, 255]


def test_cmyk_jpegs_have_their_right_colours():
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert np.abs(decode(encoded(red, "JPEG", quality=95)).astype(int) - (255, 0, 0)).max() <= 6


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_laid_over_white(mode):
    clear = Image.new(mode, (2, 1), (10, 20, 30, 0) if mode == "RGBA" else (10, 0))
    assert (decode(encoded(clear, "PNG")) == 255).all()
    half = Image.new(mode, (1, 1), (0, 0, 0, 51) if mode == "RGBA" else (0, 51))
    assert (decode(encoded(half, "PNG")) == 204).all()  # 255 * (1 - 51/255)


def test_a_transparent_palette_entry_shows_the_background():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert decode(encoded(image, "PNG", transparency=0)).tolist() == [[[255] * 3, [200, 100, 50]]]


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_of_an_animation_the_first_frame_counts(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    film = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, lossless=True)
    assert decode(film)[0, 0].tolist() == [255, 0, 0] or decode(film)[0, 0].tolist() == [254, 0, 0]


def test_a_tiff_of_several_pages_is_refused():
    with pytest.raises(UnreadableImage, match="TIFF of 2 pages"):
        decode(encoded(noise(), "TIFF", save_all=True, append_images=[noise()]))


def deep(kind: str) -> bytes:
    if kind == "rgb.png":  # Pillow writes no 16-bit colour: by hand
        row = b"\0" + bytes(range(12))
        chunks = [
            (b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(row)),
            (b"IEND", b""),
        ]
        framed = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
        return b"\x89PNG\r\n\x1a\n" + b"".join(framed)
    if kind == "rgb.ppm":
        return b"P6 2 1 65535\n" + bytes(12)
    if kind == "rgb.tiff":  # little-endian, one strip; tags in ascending order, the three depths after the directory
        tags = [(256, 3, 1, 2), (257, 3, 1, 1), (258, 3, 3, 110), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 116)]
        tags += [(277, 3, 1, 3), (279, 4, 1, 12)]
        directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
        return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<3H", 16, 16, 16) + bytes(12)
    values = np.arange(6, dtype=np.uint16).reshape(2, 3) * 1000
    image = Image.fromarray(values.astype(np.float32) if kind == "float.tiff" else values)
    return encoded(image, "PNG" if kind.endswith("png") else "TIFF" if kind.endswith("tiff") else "PPM")


@pytest.mark.parametrize("kind", ["grey.png", "grey.tiff", "grey.pgm", "rgb.png", "rgb.ppm", "rgb.tiff", "float.tiff"])
def test_more_than_eight_bits_are_refused_and_never_cut_in_silence(kind):
    with pytest.raises(UnreadableImage, match="floating point" if "float" in kind else "more than 8 bits") as caught:
        decode(deep(kind))
    assert "8 bits per channel" in caught.value.mend


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_a_truncated_file_is_refused_whatever_its_format(kind, share):
    whole = encoded(noise(size=(64, 48)), kind)
    with pytest.raises(UnreadableImage):
        decode(whole[: int(len(whole) * share)])


def test_every_format_of_the_list_is_read():
    assert all(decode(encoded(noise(), kind)).shape == (9, 13, 3) for kind in FORMATS)


@pytest.mark.parametrize(
    ("content", "reason", "mend"),
    [
        (b"", "empty", "Copy"),
        (b"<!DOCTYPE html><html>404</html>", "web page", "fetch it again"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "PostScript", "Export"),
        (b"8BPS\0\1" + bytes(40), "Photoshop", "Export"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC", "Convert"),
        (b"plain words, nothing else", "not a picture", "Convert"),
    ],
)
def test_a_disguised_or_empty_file_is_named_with_reason_and_mend(tmp_path, content, reason, mend):
    path = tmp_path / "cat.jpg"
    path.write_bytes(content)
    with pytest.raises(UnreadableImage, match=reason) as caught:
        decode(path)
    assert caught.value.path == str(path)
    assert str(path) not in caught.value.reason
    assert mend in caught.value.mend
    assert caught.value.exit_code == 3


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("width", "height"), [(9000, 9000), (20000, 20000), (PIXEL_CAP + 1, 1)])
def test_a_decompression_bomb_is_refused_by_its_header(width, height):
    with pytest.raises(UnreadableImage, match="more than 67,108,864 pixels"):
        decode(huge_png(width, height))


@pytest.mark.parametrize("missing", ["gone.png", "folder", "bad\udcff.png", "nul\0.png"])
def test_what_is_no_file_is_refused_by_name(tmp_path, missing):
    (tmp_path / "folder").mkdir()
    with pytest.raises(UnreadableImage) as caught:
        decode(tmp_path / missing)
    assert missing[:3] in str(caught.value)
    str(caught.value).encode()


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM", b"II*\0", b"P6"]),
)
def test_no_bytes_whatever_raise_anything_but_the_named_error(content, head):
    try:
        image = decode(head + content)
    except UnreadableImage:
        return
    assert image.dtype == np.uint8
    assert image.ndim == 3


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
