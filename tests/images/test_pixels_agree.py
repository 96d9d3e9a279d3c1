"""One picture, one set of pixels: whoever reads a file, by whichever way, gets the same bytes or the same refusal."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convsmith.images import (
    FilePixels,
    UnreadableImage,
    audit,
    decode,
    decode_seen,
    evaluation_pixels,
    open_source,
    pixel_cache,
)

LAYOUT = {"size": 12, "fit": "crop", "channels": 3, "range": (100.0, 60_000.0)}


def photo(seed: int = 1, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> Image.Image:
    """Colours that vary smoothly, so that JPEG keeps them."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    return encoded(photo(orientation), "JPEG", exif=exif, quality=90)


def film(kind: str) -> bytes:
    frames = [photo(seed) for seed in (1, 2, 3)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)


def bomb(side: int) -> bytes:
    """A PNG whose header promises side x side grey pixels; for 9,000 the pixels are there, in ten kilobytes or so."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = side if side < 10_000 else 1
    data = zlib.compress((b"\0" * (1 + (side + 7) // 8)) * rows, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def deep(kind: type, size: tuple[int, int] = (40, 30)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(2).integers(0, 65_536, (size[1], size[0])).astype(kind))


READ: dict[str, Callable[[], bytes]] = {  # what must be read: name of the file -> its bytes
    **{f"turned{k}.jpg": lambda k=k: turned(k) for k in range(1, 9)},
    "cmyk.tiff": lambda: encoded(photo(mode="CMYK"), "TIFF"),
    "adobe.jpg": lambda: encoded(photo(mode="CMYK"), "JPEG", quality=90),
    "deep.png": lambda: encoded(deep(np.uint16), "PNG"),
    "deep.tiff": lambda: encoded(deep(np.uint16), "TIFF"),
    "deep.pgm": lambda: encoded(deep(np.uint16), "PPM"),
    "float.tiff": lambda: encoded(deep(np.float32), "TIFF"),
    "alpha.png": lambda: encoded(Image.merge("RGBA", (*photo().split(), photo(4, mode="L"))), "PNG"),
    "palette.png": lambda: encoded(photo().quantize(16), "PNG"),
    "clear.png": lambda: encoded(photo().quantize(16), "PNG", transparency=3),
    "film.gif": lambda: film("GIF"),
    "film.webp": lambda: film("WEBP"),
    "dot.png": lambda: encoded(photo(size=(1, 1)), "PNG"),
    "tall.png": lambda: encoded(photo(size=(1, 10_000)), "PNG"),
    "wide.jpg": lambda: encoded(photo(size=(10_000, 1)), "JPEG"),
    "grey.jpg": lambda: encoded(photo(mode="L"), "JPEG"),
    "bits.png": lambda: encoded(photo(mode="1"), "PNG"),
    "UPPER.JPG": lambda: encoded(photo(), "JPEG"),
    "Mixed.JpEg": lambda: encoded(photo(), "JPEG"),
    "misnamed.jpg": lambda: encoded(photo(), "PNG"),
}
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {  # what must be refused, and the reason
    "truncated.jpg": (lambda: encoded(photo(), "JPEG")[:-200], "cut short"),
    "zero.jpg": (lambda: b"", "empty"),
    "page.jpg": (lambda: b"<!DOCTYPE html><html><body>Not found</body></html>", "web page"),
    "drawing.jpg": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
    "layers.jpg": (lambda: b"8BPS\0\1" + bytes(60), "Photoshop"),
    "bomb81.png": (lambda: bomb(9_000), "9000 x 9000 is more than"),
    "bomb400.png": (lambda: bomb(20_000), "more than 67,108,864 pixels"),
    "colour16.ppm": (lambda: b"P6 2 1 65535\n" + bytes(12), "more than 8 bits"),
    "pages.tiff": (
        lambda: encoded(photo(mode="L"), "TIFF", save_all=True, append_images=[photo(2, mode="L")]),
        "TIFF of 2 pages",
    ),
    "phone.jpg": (lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(60), "HEIC"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Every kind of file in two classes."""
    for name, content in [*READ.items(), *((name, content) for name, (content, _) in REFUSED.items())]:
        for label in ("a", "b"):
            path = tmp_path / "root" / label / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content())
    return tmp_path / "root"


@pytest.mark.parametrize("again", [False, True], ids=["read", "remembered"])
def test_cache_data_set_and_plain_decoding_give_the_same_pixels(folder, tmp_path, again):
    clean, record = audit(*open_source(folder), floats=True)
    if again:
        clean, record = audit(*open_source(folder), floats=True)
    cached = pixel_cache(clean, **LAYOUT, folder=tmp_path / "c")
    assert {name.partition("/")[2] for name in clean.ids} == set(READ)
    for i, name in enumerate(clean.ids):
        plain = evaluation_pixels(decode(folder / name), **LAYOUT)
        assert np.array_equal(cached[i].transpose(1, 2, 0), plain), name
        assert np.array_equal(evaluation_pixels(clean.read(i), **LAYOUT), plain), name
        assert np.array_equal(evaluation_pixels(decode((folder / name).read_bytes()), **LAYOUT), plain), name
        assert clean.hashes[i].tobytes() == hashlib.sha256((folder / name).read_bytes()).digest(), name
        assert tuple(clean.scan.shapes[i]) == decode(folder / name).shape
    reasons = {item["path"]: item["reason"] for item in record["unreadable"]}
    assert {name.partition("/")[2] for name in reasons} == set(REFUSED)
    for name, reason in reasons.items():
        assert refusal(lambda path=folder / name: decode(path)) == reason
        alone = replace(clean.select([0]), pixels=FilePixels(folder, (name,)), rows=np.zeros(1, np.int64))
        assert refusal(lambda data=alone: data.read(0)) == reason
        assert refusal(lambda data=alone: pixel_cache(data, **LAYOUT, folder=tmp_path / "d")) == reason


def refusal(read: Callable[[], object]) -> str:
    with pytest.raises(UnreadableImage) as caught:
        read()
    assert caught.value.mend
    return caught.value.reason


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", sorted(REFUSED))
def test_each_refusal_says_what_is_the_matter(tmp_path, name):
    content, reason = REFUSED[name]
    (tmp_path / name).write_bytes(content())
    assert reason in refusal(lambda: decode(tmp_path / name))


def test_bombs_are_small_files_and_refused_before_anything_is_decoded(tmp_path, monkeypatch):
    assert len(bomb(9_000)) < 20_000
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    for side in (9_000, 20_000):
        (tmp_path / "bomb.png").write_bytes(bomb(side))
        refusal(lambda: decode(tmp_path / "bomb.png"))


def test_upright_pixels_of_all_orientations_are_the_stored_ones_turned(tmp_path):
    for k in range(1, 9):
        stored = np.asarray(Image.open(io.BytesIO(turned(k))).convert("RGB"))
        upright = {
            1: stored,
            2: stored[:, ::-1],
            3: stored[::-1, ::-1],
            4: stored[::-1],
            5: stored.transpose(1, 0, 2),
            6: np.rot90(stored, -1),
            7: stored[::-1, ::-1].transpose(1, 0, 2),
            8: np.rot90(stored, 1),
        }[k]
        pixels, forms = decode_seen(turned(k))
        assert np.array_equal(pixels, upright)
        assert forms == ({"rotated"} if k > 1 else set())
