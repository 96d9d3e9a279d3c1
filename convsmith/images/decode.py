"""From a file to pixels: the one place where a picture is decoded, brought to size, and hashed.

Everything that trains, predicts, serves or evaluates calls these functions, so the same picture gives the same bytes
whether it comes as a file or as an array. The declared rules, whose version is `RULES`:

    formats      JPEG, PNG, BMP, WebP, TIFF, GIF, PPM, told by content and never by the file's name
    size         at most `PIXEL_CAP` pixels, checked in the header before anything is decoded
    orientation  the EXIF tag is applied; a tag that cannot be read counts as absent
    channels     grey stays one channel; palette, CMYK (Adobe's inverted too) and YCbCr become RGB
    alpha        laid over white
    animation    first frame; a TIFF of several pages is refused
    depth        8 bits or fewer; 16 bits and floating point are refused rather than squeezed in silence
"""

from __future__ import annotations

import hashlib
import os
import stat
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from convsmith.errors import DataError

RULES = 1  # raise it when the pixels of any picture change: pixel caches of older rules are then not reused
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
PIXEL_CAP = (
    2**26
)  # 67 MP, 201 MB as RGB: above the common phone cameras, below the decompression bombs seen in the wild
WHITE = 255

Fit = Literal["crop", "pad", "stretch"]

_GREY = ("1", "L", "LA", "La")
_ALPHA_WITHOUT_TAG = ("LA", "La", "RGBA", "RGBa", "PA")
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DEEP = (
    "Save it with 8 bits per channel, scaled by a rule you chose: squeezing deeper values in silence would lose them."
)


class UnreadableImage(DataError):
    """One picture cannot be decoded by the declared rules.

    Args:
        path: which, as it should be shown.
        reason: why, without the path, as the audit lists it.
        mend: what to do about it.
    """

    def __init__(self, path: str, reason: str, *, mend: str = "") -> None:
        super().__init__(f"{path}: {reason}.", mend=mend)
        self.path = path
        self.reason = reason


def decode(source: str | os.PathLike[str] | bytes | Image.Image) -> np.ndarray:
    """Decode one picture fully, by the rules at the head of this module.

    Args:
        source: a path, the bytes of an encoded picture (not of a path), or a picture that Pillow has opened.

    Returns:
        uint8 `[H, W, C]`, C = 1 for grey and 3 for RGB, writable and contiguous.

    Raises:
        UnreadableImage: whatever keeps it from being read, with the path, the reason and the mend.
    """
    if isinstance(source, Image.Image):
        return _pixels(source, "image")
    if isinstance(source, bytes):
        return _decode(BytesIO(source), f"image of {len(source)} bytes", len(source))
    name = shown(os.fspath(source))
    try:
        status = Path(source).stat()
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableImage(name, "not a file", mend="Give the path of an image file.")
        with Path(source).open("rb") as stream:
            return _decode(stream, name, status.st_size)
    except FileNotFoundError:
        mend = "Put it back, or start again so that the data is listed anew."
        raise UnreadableImage(name, "the file is not there", mend=mend) from None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        raise UnreadableImage(name, str(getattr(error, "strerror", None) or error)) from error


def evaluation_pixels(image: np.ndarray, *, size: int, fit: Fit, channels: int) -> np.ndarray:
    """Bring a decoded picture to the size and channels a network takes.

    Resampling is Pillow's bicubic, whose kernel widens with the reduction, so nothing aliases. `crop` scales the
    shorter side to `size` and keeps the centre, in one resampling; `pad` scales the longer side and centres it on
    black; `stretch` scales both sides, whatever the shape. RGB becomes grey by ITU-R 601 luma before resampling, grey
    becomes RGB by repetition after it. A picture that already fits comes back with its own bytes.

    Args:
        image: uint8 `[H, W, C]`, C in {1, 3}.
        size: the side of the square, in pixels.
        fit: `crop`, `pad` or `stretch`.
        channels: 1 or 3.

    Returns:
        uint8 `[size, size, channels]`, contiguous.
    """
    if fit not in ("crop", "pad", "stretch"):
        raise ValueError(f"fit is {fit!r}; expected crop, pad or stretch")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
        raise ValueError(f"image is {image.dtype} {list(image.shape)}; expected uint8 [H, W, 1] or [H, W, 3]")
    if channels == 1 and image.shape[2] == 3:
        image = np.asarray(Image.fromarray(image).convert("L"))[..., None]
    if image.shape[:2] != (size, size):
        image = _resize(image, size, fit)
    if channels == 3 and image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    return np.ascontiguousarray(image)


def pixel_hash(pixels: np.ndarray) -> bytes:
    """Hash a picture by what is seen: SHA-256 over its shape (three little-endian uint32) and its bytes in C order.

    Args:
        pixels: uint8 `[H, W, C]`.

    Returns:
        32 bytes, equal for equal pixels, whatever the file format they came from.
    """
    digest = hashlib.sha256(np.array(pixels.shape, "<u4").tobytes())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def shown(path: str) -> str:
    """Write a path so that it can be printed and encoded anywhere: a byte that is no UTF-8 is shown as `\\xNN`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _decode(stream: BinaryIO, name: str, length: int) -> np.ndarray:
    if length == 0:
        raise UnreadableImage(name, "the file is empty", mend="Copy it again from where it came.")
    try:
        with Image.open(stream, formats=FORMATS) as image:
            return _pixels(image, name)
    except UnidentifiedImageError:
        stream.seek(0)
        reason, mend = _impostor(stream.read(16))
        raise UnreadableImage(name, reason, mend=mend) from None
    except UnreadableImage:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableImage(name, f"more than {PIXEL_CAP:,} pixels", mend="Scale it down first.") from error
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files: struct.error, KeyError, ...
        reason = f"damaged or cut short ({error or type(error).__name__})"
        raise UnreadableImage(name, reason, mend="Copy it again from where it came, or remove it.") from error


def _pixels(image: Image.Image, name: str) -> np.ndarray:
    _refuse_unsuitable(image, name)
    image.load()
    return _eight_bit(_upright(image), name)


def _refuse_unsuitable(image: Image.Image, name: str) -> None:
    """Judge by the header alone, before pixels are decoded."""
    width, height = image.size
    if width * height > PIXEL_CAP:
        raise UnreadableImage(
            name, f"{width} x {height} is more than {PIXEL_CAP:,} pixels", mend="Scale it down, or cut it into tiles."
        )
    if image.mode == "F":
        raise UnreadableImage(name, "its values are floating point, without a declared range", mend=_DEEP)
    if image.mode.startswith("I") or _bits_beyond_eight(image):
        raise UnreadableImage(name, "it has more than 8 bits per channel", mend=_DEEP)
    if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
        pages = getattr(image, "n_frames", 1)
        raise UnreadableImage(name, f"a TIFF of {pages} pages", mend="Save the page that counts as its own file.")


def _bits_beyond_eight(image: Image.Image) -> bool:
    """Find the depth of colour files, which Pillow would cut to 8 bits without a word.

    TIFF states it in a tag; PNG and PPM in what Pillow's decoder is told (`RGB;16B`, or the largest value).
    """
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (1,))) > 8  # type: ignore[attr-defined]
    for tile in getattr(image, "tile", ()):
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        for argument in arguments:
            if isinstance(argument, str) and ";16" in argument:
                return True
            if image.format == "PPM" and isinstance(argument, int) and argument > 255:
                return True
    return False


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged tag block says nothing about the pixels, which are sound
        orientation = 1
    method = _UPRIGHT.get(orientation)
    return image if method is None else image.transpose(method)


def _eight_bit(image: Image.Image, name: str) -> np.ndarray:
    if image.mode == "LAB":
        raise UnreadableImage(name, "its colours are CIE Lab", mend="Save it as RGB.")
    mode = "L" if image.mode in _GREY else "RGB"
    if image.mode in _ALPHA_WITHOUT_TAG or "transparency" in image.info:
        if image.mode == "La":  # Pillow knows no direct way from premultiplied grey
            image = image.convert("LA")
        coloured = image.convert("RGBA")
        background = Image.new(mode, image.size, WHITE if mode == "L" else (WHITE,) * 3)
        image = Image.composite(coloured.convert(mode), background, coloured.getchannel("A"))
    pixels = np.array(image.convert(mode))
    return pixels[..., None] if mode == "L" else pixels


def _impostor(head: bytes) -> tuple[str, str]:
    """Say what a file that is no readable picture seems to be, and the mend."""
    if head[4:8] == b"ftyp":
        return "a HEIC or AVIF photo (or a video), which is not read", "Convert it to JPEG or PNG."
    if head.startswith((b"%!PS", b"8BPS", b"%PDF")):
        return "a PostScript, Photoshop or PDF file, whatever its name says", "Export it as PNG."
    if head.lstrip().lower().startswith((b"<!doc", b"<html", b"<?xml", b"<svg")):
        return "a web page or drawing, not a picture", "It may be a failed download: fetch it again."
    return f"not a picture in a format that is read ({', '.join(FORMATS)})", "Convert it to JPEG or PNG, or remove it."


def _resize(image: np.ndarray, size: int, fit: Fit) -> np.ndarray:
    height, width, channels = image.shape
    picture = Image.fromarray(image[..., 0] if channels == 1 else image)
    if fit == "pad":
        longest = max(height, width)
        inner = (max(1, round(width * size / longest)), max(1, round(height * size / longest)))
        canvas = Image.new(picture.mode, (size, size))
        canvas.paste(picture.resize(inner, Image.Resampling.BICUBIC), ((size - inner[0]) // 2, (size - inner[1]) // 2))
        picture = canvas
    else:
        side_x, side_y = (width, height) if fit == "stretch" else (min(width, height),) * 2
        left, top = (width - side_x) / 2, (height - side_y) / 2
        box = (left, top, left + side_x, top + side_y)
        picture = picture.resize((size, size), Image.Resampling.BICUBIC, box=box)
    return np.asarray(picture).reshape(size, size, channels)
