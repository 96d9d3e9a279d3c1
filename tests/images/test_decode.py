"""What a picture's pixels are, by every rule that `decode` declares."""

from __future__ import annotations

import io
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from convsmith.errors import UsageError
from convsmith.images.decode import (
    FORMATS,
    FORMS_SEEN,
    PIXEL_CAP,
    UnreadableImage,
    decode,
    decode_seen,
)
from convsmith.images.hashes import pixel_hash

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


def test_a_tiff_of_several_pages_is_refused_and_the_mend_names_the_choice():
    with pytest.raises(UnreadableImage, match="TIFF of 2 pages") as caught:
        decode(encoded(noise(), "TIFF", save_all=True, append_images=[noise()]))
    assert "--set data.channels=[0]" in caught.value.mend
    with pytest.raises(UnreadableImage, match="TIFF of 3 pages") as caught:
        decode(encoded(noise(), "TIFF", save_all=True, append_images=[noise(), noise()]))
    assert "--set data.channels=[0,1,2]" in caught.value.mend


def stack(count: int, depth: type = np.uint8) -> tuple[np.ndarray, bytes]:
    """Grey pages of noise, and the TIFF that holds them."""
    values = np.random.default_rng(5).integers(0, np.iinfo(depth).max, (count, 5, 7), depth, endpoint=True)
    first, *others = map(Image.fromarray, values)
    return values, encoded(first, "TIFF", save_all=True, append_images=others)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("pick", [(2,), (0,), (3, 0, 2), (1, 1, 1)])
def test_picked_pages_become_the_channels_in_the_order_given(depth, pick):
    values, content = stack(4, depth)
    pixels = decode(content, pick=pick)
    assert pixels.dtype == depth
    assert np.array_equal(pixels, values[list(pick)].transpose(1, 2, 0))


def test_in_a_file_of_one_page_the_channels_are_picked():
    colour = noise()
    assert np.array_equal(decode(encoded(colour, "PNG"), pick=(1,)), np.asarray(colour)[..., 1:2])
    assert np.array_equal(decode(encoded(colour, "PNG"), pick=(2, 1, 0)), np.asarray(colour)[..., ::-1])


def test_a_plane_that_is_not_there_or_a_page_in_colour_is_named():
    with pytest.raises(UnreadableImage, match="asks for page 4, and it has 4") as caught:
        decode(stack(4)[1], pick=(4,))
    assert "0 to 3" in caught.value.mend
    with pytest.raises(UnreadableImage, match="asks for channel 1, and it has 1"):
        decode(encoded(noise("L"), "PNG"), pick=(1,))
    with pytest.raises(UnreadableImage, match="page 1 of 2 is in colour"):
        decode(encoded(noise("L"), "TIFF", save_all=True, append_images=[noise()]), pick=(1,))
    other = Image.fromarray(np.zeros((3, 3), np.uint8))
    with pytest.raises(UnreadableImage, match=r"pages \[0,1,0\] do not fit together"):
        decode(encoded(noise("L"), "TIFF", save_all=True, append_images=[other]), pick=(0, 1, 0))
    for pick in ((), (0, 1), (-1,)):
        with pytest.raises(UsageError, match="one plane or three"):
            decode(encoded(noise(), "PNG"), pick=pick)


def tiff(bits: tuple[int, ...], photometric: int, data: bytes, *, extra: tuple[int, ...] = (), kind: int = 1) -> bytes:
    """A little-endian TIFF of 2 x 1 pixels in one strip, by hand (TIFF 6.0, section 2)."""
    count = len(bits)
    tags = {
        256: (3, (2,)),
        257: (3, (1,)),
        258: (3, bits),
        259: (3, (1,)),
        262: (3, (photometric,)),
        277: (3, (count,)),
    }
    tags |= {278: (3, (1,)), 279: (4, (len(data),)), 339: (3, (kind,) * count)}
    if extra:
        tags[338] = (3, extra)
    tags[273] = (4, (0,))
    after = 8 + 2 + 12 * len(tags) + 4
    directory, values = struct.pack("<H", len(tags)), b""
    stored = {tag: struct.pack(f"<{len(v)}{'H' if k == 3 else 'I'}", *v) for tag, (k, v) in tags.items()}
    strip = after + sum(len(content) for tag, content in stored.items() if len(content) > 4)
    stored[273] = struct.pack("<I", strip)
    for tag, (k, v) in sorted(tags.items()):
        content = stored[tag]
        if len(content) > 4:
            content, values = struct.pack("<I", after + len(values)), values + content
        directory += struct.pack("<HHI", tag, k, len(v)) + content.ljust(4, b"\0")
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + values + data


def test_the_tiff_by_hand_is_a_tiff():
    assert decode(tiff((8, 8, 8), 2, bytes(range(6)))).tolist() == [[[0, 1, 2], [3, 4, 5]]]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (tiff((8,) * 5, 2, bytes(10), extra=(0, 0)), "TIFF of 5 channels"),
        (tiff((8,) * 4, 2, bytes(8), extra=(0,)), "TIFF of 4 channels"),
        (tiff((16,) * 5, 1, bytes(20), extra=(0, 0, 0, 0)), "TIFF of 5 channels of 16 bits"),
        (tiff((8,) * 7, 1, bytes(14), extra=(0,) * 6), "TIFF of 7 channels of 8 bits"),
    ],
)
def test_more_than_three_channels_are_a_named_error_that_points_to_the_choice(content, reason):
    with pytest.raises(UnreadableImage, match=reason) as caught:
        decode(content)
    assert "--set data.channels=[0,1,2]" in caught.value.mend


def test_of_a_tiff_with_channels_beyond_colour_three_can_be_picked():
    content = tiff((8,) * 4, 2, bytes(range(8)), extra=(0,))
    assert decode(content, pick=(0, 1, 2)).tolist() == [[[0, 1, 2], [4, 5, 6]]]


def test_a_tiff_of_a_depth_that_is_not_read_says_its_depth():
    with pytest.raises(UnreadableImage, match="1 channel of 64 bits") as caught:
        decode(tiff((64,), 1, bytes(16), kind=3))
    assert "32-bit floating point" in caught.value.mend


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *between: tuple[bytes, bytes]) -> bytes:
    """A PNG by hand: `rows` with their filter bytes, `between` chunks that stand before them."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *between, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    framed = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


VALUES = np.array([[0, 1, 255], [256, 40_000, 65_535]], np.uint16)
BIG = VALUES.astype(">u2").tobytes()


@pytest.mark.parametrize(
    "content",
    [
        png(3, 2, 16, 0, b"\0" + BIG[:6] + b"\0" + BIG[6:]),
        b"P5 3 2 65535\n" + BIG,
        encoded(Image.fromarray(VALUES), "TIFF"),
        encoded(Image.frombytes("I;16B", (3, 2), BIG), "TIFF"),
        encoded(Image.fromarray(VALUES.astype(np.int32)), "TIFF"),
        encoded(Image.fromarray(VALUES), "TIFF", compression="tiff_lzw"),
    ],
    ids=["png", "pgm", "tiff", "tiff big-endian", "tiff of 32-bit integers", "tiff compressed"],
)
def test_16_bit_grey_keeps_every_value(content):
    pixels = decode(content)
    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels[..., 0], VALUES)
    assert decode_seen(content)[1] == {"16-bit", "grey"}


def test_16_bit_grey_is_turned_upright_and_inverted_where_the_file_says_so():
    exif = Image.Exif()
    exif[274] = 6
    turned = decode(encoded(Image.fromarray(np.rot90(VALUES).copy()), "TIFF", exif=exif))
    assert np.array_equal(turned[..., 0], VALUES)
    inverted = tiff((16,), 0, np.array([0, 1000], "<u2").tobytes())
    assert decode(inverted).ravel().tolist() == [65_535, 64_535]


def test_a_16_bit_value_declared_transparent_shows_white():
    content = png(3, 1, 16, 0, b"\0" + BIG[:6], (b"tRNS", struct.pack(">H", 1)))
    assert decode(content).ravel().tolist() == [0, 65_535, 255]


def test_whole_numbers_beyond_16_bits_are_refused_with_their_range():
    with pytest.raises(UnreadableImage, match="run from -1 to 70000"):
        decode(encoded(Image.fromarray(np.array([[-1, 70_000]], np.int32)), "TIFF"))


def test_floating_point_is_kept_as_it_is():
    values = np.array([[-1.5, 0.25], [3e8, 1e-9]], np.float32)
    pixels, forms = decode_seen(encoded(Image.fromarray(values), "TIFF"))
    assert pixels.dtype == np.float32
    assert np.array_equal(pixels[..., 0], values)
    assert forms == {"float", "grey"}
    values[0, 0] = np.nan
    with pytest.raises(UnreadableImage, match="not finite"):
        decode(encoded(Image.fromarray(values), "TIFF"))


@pytest.mark.parametrize(
    "content",
    [
        png(2, 1, 16, 2, b"\0" + bytes(range(12))),
        png(2, 1, 16, 4, b"\0" + bytes(range(8))),
        b"P6 2 1 65535\n" + bytes(12),
        tiff((16, 16, 16), 2, bytes(12)),
    ],
    ids=["rgb.png", "grey with alpha.png", "rgb.ppm", "rgb.tiff"],
)
def test_colour_of_more_than_eight_bits_is_refused_and_never_cut_in_silence(content):
    with pytest.raises(UnreadableImage, match="more than 8 bits") as caught:
        decode(content)
    assert "8 bits per channel" in caught.value.mend


def cmyk_jpeg(stored: tuple[int, int, int, int], transform: int | None) -> bytes:
    """A JPEG of one 8 x 8 block of one colour in four components, by hand (ITU-T T.81; marker 14 as Adobe writes it).

    With a step of 8 for the mean of a block, its coefficient is the stored value less 128.
    """

    def segment(marker: int, content: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content

    adobe = b"" if transform is None else segment(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, transform))
    steps = segment(0xDB, b"\0" + bytes([8] + [1] * 63))
    frame = segment(0xC0, struct.pack(">BHHB", 8, 8, 8, 4) + b"".join(bytes([i, 0x11, 0]) for i in range(1, 5)))
    lengths = bytes([0, 0, 0, 9] + [0] * 12)  # nine codes of four bits: the sizes 0 to 8
    codes = segment(0xC4, b"\x00" + lengths + bytes(range(9))) + segment(0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\0")
    scan = segment(0xDA, b"\4" + b"".join(bytes([i, 0]) for i in range(1, 5)) + b"\0\x3f\0")
    bits = ""
    for value in stored:
        mean = value - 128
        size = abs(mean).bit_length()
        low = mean if mean >= 0 else mean + (1 << size) - 1
        bits += f"{size:04b}" + (f"{low:0{size}b}" if size else "") + "0"  # then: nothing but zeros
    bits += "1" * (-len(bits) % 8)
    packed = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    return b"\xff\xd8" + adobe + steps + frame + codes + scan + packed + b"\xff\xd9"


@pytest.mark.parametrize(
    "stored", [(255, 0, 0, 255), (255, 255, 255, 255), (0, 0, 0, 0), (200, 100, 50, 255), (255, 128, 9, 77)]
)
@pytest.mark.parametrize("transform", [0, None])
def test_inverted_inks_of_an_adobe_jpeg_are_light_that_is_let_through(stored, transform):
    content = cmyk_jpeg(stored, transform)
    pixels, forms = decode_seen(content)
    expected = [round(part * stored[3] / 255) for part in stored[:3]]  # what is stored is 255 less the ink
    assert np.abs(pixels.reshape(-1, 3).astype(int) - expected).max() <= 1
    assert forms == ({"cmyk", "adobe-inverted"} if transform == 0 else {"cmyk"})


def test_ycck_of_an_adobe_jpeg_becomes_rgb():
    # YCbCr of cyan, ITU-R 601: it is made of 255 less the stored, inverted inks (Adobe technical note 5116); no black
    pixels = decode(cmyk_jpeg((179, 171, 0, 255), 2))
    assert np.abs(pixels.reshape(-1, 3).astype(int) - (255, 0, 0)).max() <= 3


def test_each_form_is_named_and_nothing_else():
    colour = noise()
    exif = Image.Exif()
    exif[274] = 8
    clear = colour.convert("RGBA")
    film = {"save_all": True, "append_images": [noise().transpose(Image.Transpose.ROTATE_180)]}
    cases = [
        (encoded(colour, "PNG"), set()),
        (encoded(colour, "JPEG"), set()),
        (encoded(colour, "JPEG", exif=exif), {"rotated"}),
        (encoded(noise("L"), "PNG"), {"grey"}),
        (encoded(noise("L").convert("1"), "PNG"), {"grey", "bilevel"}),
        (encoded(clear, "PNG"), {"alpha"}),
        (encoded(noise("L").convert("LA"), "PNG"), {"alpha", "grey"}),
        (encoded(colour.convert("P"), "PNG"), {"palette"}),
        (encoded(colour.convert("P"), "PNG", transparency=0), {"palette", "alpha"}),
        (encoded(colour, "WEBP", **film), {"animated"}),
        (encoded(colour, "PNG", **film), {"animated"}),
        (encoded(colour.convert("P"), "GIF", **film), {"animated", "palette"}),
        (encoded(colour.convert("CMYK"), "TIFF"), {"cmyk"}),
    ]
    for content, forms in cases:
        assert decode_seen(content)[1] == forms
    assert set().union(*(forms for _, forms in cases)) <= set(FORMS_SEEN)


@pytest.mark.parametrize(
    ("name", "kind", "misnamed"),
    [("a.jpg", "PNG", True), ("a.JPEG", "JPEG", False), ("a.png", "WEBP", True), ("a.dat", "PNG", False)],
)
def test_a_name_that_belies_the_content_is_noticed(tmp_path, name, kind, misnamed):
    (tmp_path / name).write_bytes(encoded(noise(), kind))
    assert ("misnamed" in decode_seen(tmp_path / name)[1]) is misnamed


def test_damage_behind_the_first_frame_leaves_the_first_frame_alone():
    frames = [noise("L", (64, 48)), noise("L", (64, 48)).transpose(Image.Transpose.ROTATE_180)]
    whole = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100)
    expected = decode(whole)
    second = whole.rindex(b"!\xf9")  # the control block that stands before a frame
    assert np.array_equal(decode(whole[: second + 9]), expected)


def test_a_named_pipe_is_no_file_and_nobody_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UnreadableImage, match="not a file"):
        decode(tmp_path / "pipe.png")


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
        (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC", "magick photo.heic"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif", "AVIF", "magick photo.avif"),
        (b"\0\0\0\x18ftypisom" + bytes(40), "video", "frames"),
        (b"II*\0", "TIFF that is damaged", "Copy"),
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
    assert image.dtype in (np.uint8, np.uint16, np.float32)
    assert image.ndim == 3
