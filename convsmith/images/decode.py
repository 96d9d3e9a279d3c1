"""From a file to pixels: the one place where a picture is decoded, brought to size, and hashed.

Everything that trains, predicts, serves or evaluates calls these functions, so the same picture gives the same bytes
whether it comes as a file or as an array. The declared rules, whose version is `RULES`:

    formats      JPEG, PNG, BMP, WebP, TIFF, GIF, PPM, told by content and never by the file's name
    size         at most `PIXEL_CAP` pixels, checked in the header before anything is decoded
    orientation  the EXIF tag is applied; a tag that cannot be read counts as absent
    channels     grey stays one channel; palette, CMYK (Adobe's inverted too) and YCbCr become RGB
    alpha        laid over white
    animation    first frame
    planes       a TIFF of several pages, or with channels beyond its colours, is read only where `pick` names one or
                 three of them
    depth        16-bit grey keeps its values as uint16, floating point as float32; `evaluation_pixels` scales them by
                 a range that is given. 16-bit colour is refused: Pillow would cut it to 8 bits without a word

`FORMS_SEEN` names what of this touched a picture.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
from collections.abc import Iterable
from io import BytesIO
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from convsmith.errors import DataError, UsageError
from convsmith.images.impostors import impostor

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
_PHOTOMETRIC = 262
_EXTRA_SAMPLES = 338
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
_RANGE = "Name the values that become black and white: --set image.range=[LOW,HIGH]."
_FORMAT_OF = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"),
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), "PPM"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    ".png": "PNG",
    ".bmp": "BMP",
    ".webp": "WEBP",
    ".gif": "GIF",
}
FORMS_SEEN = {  # the order gives each its bit in `Scan.forms`: add at the end
    "rotated": "The camera's orientation tag is applied: the picture is turned or mirrored upright.",
    "cmyk": "Four printing inks become RGB.",
    "adobe-inverted": "Adobe's CMYK JPEGs store their inks inverted; they are turned back before they become RGB.",
    "alpha": "What is transparent shows white.",
    "palette": "Palette colours become RGB.",
    "animated": "Of an animation the first frame is taken.",
    "16-bit": "16-bit grey keeps its values; a range, image.range, is scaled to 0 to 255 before resizing.",
    "float": "Floating point values are scaled from a declared range, image.range, to 0 to 255 before resizing.",
    "grey": "Grey is one channel; among colour it is repeated into three.",
    "bilevel": "One bit per pixel becomes black and white, 0 and 255.",
    "misnamed": "The content tells the format, whatever the file's name says.",
}


class UnreadableImage(DataError):
    """One picture cannot be decoded by the declared rules.

    Args:
        path: which, as it should be shown.
        reason: why, without the path, as the audit lists it.
        mend: what to do about it.
        lasting: whether the same bytes would fail again; not so where the file could not be reached.
    """

    def __init__(self, path: str, reason: str, *, mend: str = "", lasting: bool = True) -> None:
        super().__init__(f"{path}: {reason}.", mend=mend)
        self.path = path
        self.reason = reason
        self.lasting = lasting


def decode(source: str | os.PathLike[str] | bytes | Image.Image, *, pick: tuple[int, ...] | None = None) -> np.ndarray:
    """Decode one picture fully, by the rules at the head of this module.

    Args:
        source: a path, the bytes of an encoded picture (not of a path), or a picture that Pillow has opened.
        pick: one or three planes, from 0, that become the channels: pages of a TIFF of several grey pages, else
            channels. `None` takes a picture as it is.

    Returns:
        `[H, W, C]`, C = 1 for grey and 3 for RGB, writable and contiguous: uint8, or uint16 for 16-bit grey, or float32
        for floating point.

    Raises:
        UnreadableImage: whatever keeps it from being read, with the path, the reason and the mend.
        UsageError: a `pick` that names neither one plane nor three.
    """
    return decode_seen(source, pick)[0]


def decode_seen(
    source: str | os.PathLike[str] | bytes | Image.Image, pick: tuple[int, ...] | None = None
) -> tuple[np.ndarray, frozenset[str]]:
    """Decode one picture as `decode` does, and name the rules of `FORMS_SEEN` that touched it."""
    picture, forms = decode_picture(source, pick)
    if isinstance(picture, np.ndarray):
        return picture, forms
    pixels = np.array(picture)
    return (pixels[..., None] if pixels.ndim == 2 else pixels), forms


def decode_picture(
    source: str | os.PathLike[str] | bytes | Image.Image, pick: tuple[int, ...] | None = None
) -> tuple[Image.Image | np.ndarray, frozenset[str]]:
    """Decode one picture and leave it as it came: a loaded `L` or `RGB` image of Pillow's where it has 8 bits, which
    spares the audit the copies; an array `[H, W, C]` where it is deeper or was picked. Otherwise like `decode_seen`."""
    if pick is not None and (len(pick) not in (1, 3) or min(pick) < 0):
        raise UsageError(f"data.channels is {list(pick)}.", mend="Name one plane or three, counted from 0.")
    if isinstance(source, Image.Image):
        return _pixels(source, "image", "", pick)
    if isinstance(source, bytes):
        return _decode(BytesIO(source), f"image of {len(source)} bytes", len(source), "", pick)
    name = shown(os.fspath(source))
    try:
        with open(source, "rb", opener=_open_file) as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableImage(name, "not a file", mend="Give the path of an image file.", lasting=False)
            return _decode(stream, name, status.st_size, os.path.splitext(source)[1].lower(), pick)  # noqa: PTH122
    except FileNotFoundError:
        mend = "Put it back, or start again so that the data is listed anew."
        raise UnreadableImage(name, "the file is not there", mend=mend, lasting=False) from None
    except IsADirectoryError:
        raise UnreadableImage(name, "not a file", mend="Give the path of an image file.", lasting=False) from None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        raise UnreadableImage(name, str(getattr(error, "strerror", None) or error), lasting=False) from error


def evaluation_pixels(
    image: np.ndarray,
    *,
    size: int,
    fit: Fit,
    channels: int,
    keep: float = 1.0,
    range: tuple[float, float] | None = None,
) -> np.ndarray:
    """Bring a decoded picture to the size and channels a network takes.

    Values beyond 8 bits are scaled first: round(255 (v - low) / (high - low)), cut to 0 and 255. Resampling is Pillow's
    bicubic, whose kernel widens with the reduction, so nothing aliases. `crop` takes the central square whose side is
    `keep` of the shorter side, in one resampling; `pad` scales the longer side and centres it on black; `stretch`
    scales both sides, whatever the shape. RGB becomes grey by ITU-R 601 luma before resampling, grey becomes RGB by
    repetition after it. A picture that already fits comes back with its own bytes.

    Args:
        image: uint8, uint16 or float32 `[H, W, C]`, C in {1, 3}.
        size: the side of the square, in pixels.
        fit: `crop`, `pad` or `stretch`.
        channels: 1 or 3.
        keep: share of the shorter side that `crop` keeps, above 0 and at most 1.
        range: the values that become 0 and 255; uint8 needs none and is left alone.

    Returns:
        uint8 `[size, size, channels]`, contiguous.

    Raises:
        DataError: values beyond 8 bits and no range.
        UsageError: a `keep` or a range that makes no sense.
    """
    if fit not in ("crop", "pad", "stretch"):
        raise ValueError(f"fit is {fit!r}; expected crop, pad or stretch")
    if image.dtype not in (np.uint8, np.uint16, np.float32) or image.ndim != 3 or image.shape[2] not in (1, 3):
        raise ValueError(f"image is {image.dtype} {list(image.shape)}; expected uint8 [H, W, 1] or [H, W, 3]")
    if not 0 < keep <= 1:
        raise UsageError(f"image.keep is {keep}.", mend="Give a share of the shorter side, above 0 and at most 1.")
    if keep != 1 and fit != "crop":
        raise UsageError(
            f"image.keep is {keep}, but fit {fit} keeps the whole picture.", mend="Leave keep at 1, or take fit crop."
        )
    if image.dtype != np.uint8:
        image = _scaled(image, range)
    if channels == 1 and image.shape[2] == 3:
        image = np.asarray(Image.fromarray(image).convert("L"))[..., None]
    if image.shape[:2] != (size, size) or keep != 1:
        image = _resize(image, size, fit, keep)
    if channels == 3 and image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    return np.ascontiguousarray(image)


def value_range(images: Iterable[np.ndarray]) -> tuple[float, float]:
    """Find the values that become 0 and 255: the 0.1 and 99.9 percentiles of all 16-bit pixels together.

    The percentiles are exact (inverted distribution function), from a count of each of the 65,536 values.

    Args:
        images: as `decode` gives them, one at a time; those that are not uint16 have no say.

    Raises:
        DataError: there is no 16-bit pixel.
    """
    counts = np.zeros(2**16, np.int64)
    for image in images:
        if image.dtype == np.uint16:
            counts += np.bincount(image.ravel(), minlength=2**16)
    total = int(counts.sum())
    if not total:
        raise DataError("There is no 16-bit picture to take a range of values from.", mend=_RANGE)
    below = np.cumsum(counts)
    low = int(np.searchsorted(below, math.ceil(total / 1000)))
    high = int(np.searchsorted(below, total - total // 1000))
    return float(low), float(max(high, low + 1))


def pixel_hash(pixels: np.ndarray) -> bytes:
    """Hash a picture by what is seen: SHA-256 over its shape (three little-endian uint32), its type where that is not
    uint8 (`<u2`, `<f4`), and its bytes in C order, little-endian.

    Args:
        pixels: `[H, W, C]`, of any type that `decode` gives.

    Returns:
        32 bytes, equal for equal pixels, whatever the file format they came from.
    """
    digest = hashlib.sha256(np.array(pixels.shape, "<u4").tobytes())
    if pixels.dtype != np.uint8:
        stored = pixels.dtype.newbyteorder("<")
        digest.update(stored.str.encode())
        pixels = pixels.astype(stored, copy=False)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def picture_hash(picture: Image.Image) -> bytes:
    """Hash an `L` or `RGB` image of Pillow's like `pixel_hash` its pixels, with a copy less."""
    shape = (picture.height, picture.width, len(picture.getbands()))
    digest = hashlib.sha256(np.array(shape, "<u4").tobytes())
    digest.update(picture.tobytes())
    return digest.digest()


def shown(path: str) -> str:
    """Write a path so that it can be printed and encoded anywhere: a byte that is no UTF-8 is shown as `\\xNN`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _open_file(path: str, flags: int) -> int:
    """Open without waiting: a named pipe would keep the audit until somebody writes to it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _decode(
    stream: BinaryIO, name: str, length: int, extension: str, pick: tuple[int, ...] | None
) -> tuple[Image.Image | np.ndarray, frozenset[str]]:
    if length == 0:
        raise UnreadableImage(name, "the file is empty", mend="Copy it again from where it came.")
    try:
        with Image.open(stream, formats=FORMATS) as image:
            return _pixels(image, name, extension, pick)
    except UnidentifiedImageError:
        stream.seek(0)
        reason, mend = impostor(stream, FORMATS)
        raise UnreadableImage(name, reason, mend=mend) from None
    except UnreadableImage:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableImage(name, f"more than {PIXEL_CAP:,} pixels", mend="Scale it down first.") from error
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files: struct.error, KeyError, ...
        reason = f"damaged or cut short ({error or type(error).__name__})"
        elsewhere = isinstance(error, MemoryError) or getattr(error, "errno", None) is not None
        mend = "Copy it again from where it came, or remove it."
        raise UnreadableImage(name, reason, mend=mend, lasting=not elsewhere) from error


def _pixels(
    image: Image.Image, name: str, extension: str, pick: tuple[int, ...] | None
) -> tuple[Image.Image | np.ndarray, frozenset[str]]:
    forms: set[str] = set()
    if extension and _FORMAT_OF.get(extension, image.format) != ("JPEG" if image.format == "MPO" else image.format):
        forms.add("misnamed")
    pages = int(getattr(image, "n_frames", 1)) if image.format == "TIFF" else 1
    if pages > 1:
        if pick is None:
            three = f", or of three, --set data.channels={_listed((0, 1, 2))}" if pages > 2 else ""
            raise UnreadableImage(
                name, f"a TIFF of {pages} pages", mend=f"Name the page that counts, --set data.channels=[0]{three}."
            )
        return _paged(image, name, pages, pick, forms), frozenset(forms)
    _refuse_unsuitable(image, name, picked=pick is not None)
    picture = _upright_values(image, name, forms)
    if image.format in ("GIF", "WEBP", "PNG") and _animated(image):
        forms.add("animated")
    return (picture if pick is None else _channels(picture, name, pick)), frozenset(forms)


def _upright_values(image: Image.Image, name: str, forms: set[str]) -> Image.Image | np.ndarray:
    """Load one picture or page, turn it upright, and give 8 bits as an image, deeper values as an array."""
    image.load()
    upright = _upright(image, forms)
    return _deep(upright, image, name, forms) if _is_deep(image) else _eight_bit(upright, image, name, forms)


def _is_deep(image: Image.Image) -> bool:
    return image.mode == "F" or image.mode.startswith("I")


def _paged(image: Image.Image, name: str, pages: int, pick: tuple[int, ...], forms: set[str]) -> np.ndarray:
    """Make a picture of some grey pages of a TIFF."""
    _refuse_missing(name, pages, pick, "page")
    planes = []
    for page in pick:
        image.seek(page)
        _refuse_unsuitable(image, name, picked=False)
        plane = _array(_upright_values(image, name, forms))
        if plane.shape[2] != 1:
            mend = "Save that page as its own file."
            raise UnreadableImage(name, f"page {page} of {pages} is in colour", mend=mend)
        planes.append(plane)
    if len({(plane.shape, plane.dtype) for plane in planes}) > 1:
        kinds = ", ".join(f"{plane.dtype} of {plane.shape[1]} x {plane.shape[0]}" for plane in planes)
        mend = "Choose pages of one size and depth with data.channels."
        raise UnreadableImage(name, f"its pages {_listed(pick)} do not fit together ({kinds})", mend=mend)
    return np.concatenate(planes, axis=2)


def _channels(picture: Image.Image | np.ndarray, name: str, pick: tuple[int, ...]) -> np.ndarray:
    pixels = _array(picture)
    _refuse_missing(name, pixels.shape[2], pick, "channel")
    return np.ascontiguousarray(pixels[..., list(pick)])


def _refuse_missing(name: str, number: int, pick: tuple[int, ...], kind: str) -> None:
    if max(pick) >= number:
        mend = f"Name those it has in data.channels, counted from 0: 0{f' to {number - 1}' if number > 1 else ''}."
        reason = f"data.channels asks for {kind} {max(pick)}, and it has {number} that can be read"
        raise UnreadableImage(name, reason, mend=mend)


def _array(picture: Image.Image | np.ndarray) -> np.ndarray:
    pixels = np.array(picture)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _listed(indices: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, indices))}]"


def _refuse_unsuitable(image: Image.Image, name: str, *, picked: bool) -> None:
    """Judge by the header alone, before pixels are decoded."""
    width, height = image.size
    if width * height > PIXEL_CAP:
        raise UnreadableImage(
            name, f"{width} x {height} is more than {PIXEL_CAP:,} pixels", mend="Scale it down, or cut it into tiles."
        )
    if not _is_deep(image) and _bits_beyond_eight(image):
        raise UnreadableImage(name, "it has colour of more than 8 bits per channel", mend=_DEEP)
    if image.format == "TIFF" and not picked:
        extra = image.tag_v2.get(_EXTRA_SAMPLES, ())  # type: ignore[attr-defined]
        if image.mode in ("RGB", "L", "P", "CMYK") and 0 in extra:  # Pillow would drop them without a word
            mend = f"Say which count, such as --set data.channels={'[0]' if image.mode == 'L' else '[0,1,2]'}."
            raise UnreadableImage(name, f"a TIFF of {len(image.getbands()) + len(extra)} channels", mend=mend)


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


def _upright(image: Image.Image, forms: set[str]) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged tag block says nothing about the pixels, which are sound
        orientation = 1
    method = _UPRIGHT.get(orientation)
    if method is None:
        return image
    forms.add("rotated")
    return image.transpose(method)


def _animated(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # damage behind the first frame, which is all that is read
        return True


def _deep(image: Image.Image, opened: Image.Image, name: str, forms: set[str]) -> np.ndarray:
    """Give 16-bit grey as uint16 and floating point as float32, values as stored."""
    values = np.array(image)
    white_is_zero = opened.format == "TIFF" and opened.tag_v2.get(_PHOTOMETRIC) == 0  # type: ignore[attr-defined]
    if image.mode == "F":
        forms.update(("float", "grey"))
        if white_is_zero or not np.isfinite(values).all():
            odd = "with white as zero" if white_is_zero else "and some are not finite numbers"
            raise UnreadableImage(name, f"its values are floating point {odd}", mend="Save it with plain values.")
        return values.astype(np.float32, copy=False)[..., None]
    forms.update(("16-bit", "grey"))
    if image.mode == "I" and not 0 <= values.min() <= values.max() < 2**16:
        reason = f"its whole numbers run from {values.min()} to {values.max()}, beyond 16 bits"
        raise UnreadableImage(name, reason, mend="Save it as 16-bit grey (0 to 65,535) or as floating point.")
    pixels = values.astype(np.uint16, copy=False)
    if white_is_zero:  # Pillow turns 8 bits round, and leaves 16 as they are
        pixels = np.uint16(2**16 - 1) - pixels
    if isinstance(clear := opened.info.get("transparency"), int):
        forms.add("alpha")
        pixels = np.where(pixels == clear, np.uint16(2**16 - 1), pixels)
    return pixels[..., None]


def _eight_bit(image: Image.Image, opened: Image.Image, name: str, forms: set[str]) -> Image.Image:
    if image.mode == "LAB":
        raise UnreadableImage(name, "its colours are CIE Lab", mend="Save it as RGB.")
    mode = "L" if image.mode in _GREY else "RGB"
    if mode == "L":
        forms.update(("grey", "bilevel") if image.mode == "1" else ("grey",))
    elif image.mode == "CMYK":
        forms.update(("cmyk", "adobe-inverted") if "adobe" in opened.info else ("cmyk",))
    elif image.mode in ("P", "PA"):
        forms.add("palette")
    if image.mode in _ALPHA_WITHOUT_TAG or "transparency" in image.info:
        forms.add("alpha")
        if image.mode == "La":  # Pillow knows no direct way from premultiplied grey
            image = image.convert("LA")
        coloured = image.convert("RGBA")
        background = Image.new(mode, image.size, WHITE if mode == "L" else (WHITE,) * 3)
        image = Image.composite(coloured.convert(mode), background, coloured.getchannel("A"))
    if image is opened and image.mode == mode and image.format in ("JPEG", "MPO"):
        return image  # nothing moves its pixels any more, so a copy would be for nothing
    return image.convert(mode)


def _scaled(image: np.ndarray, limits: tuple[float, float] | None) -> np.ndarray:
    if limits is None:
        raise DataError(f"A picture of {image.dtype} values has no range to be scaled from.", mend=_RANGE)
    low, high = limits
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(f"image.range is [{low}, {high}].", mend="Give two numbers, the lower one first.")
    if image.dtype == np.uint16:  # the same rule by table: a hundred times fewer sums
        return _scale(np.arange(2**16, dtype=np.float64), low, high)[image]
    return _scale(image.astype(np.float64), low, high)


def _scale(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def _resize(image: np.ndarray, size: int, fit: Fit, keep: float) -> np.ndarray:
    height, width, channels = image.shape
    picture = Image.fromarray(image[..., 0] if channels == 1 else image)
    if fit == "pad":
        longest = max(height, width)
        inner = (max(1, round(width * size / longest)), max(1, round(height * size / longest)))
        canvas = Image.new(picture.mode, (size, size))
        canvas.paste(picture.resize(inner, Image.Resampling.BICUBIC), ((size - inner[0]) // 2, (size - inner[1]) // 2))
        picture = canvas
    else:
        side_x, side_y = (width, height) if fit == "stretch" else (keep * min(width, height),) * 2
        left, top = (width - side_x) / 2, (height - side_y) / 2
        box = (left, top, left + side_x, top + side_y)
        picture = picture.resize((size, size), Image.Resampling.BICUBIC, box=box)
    return np.asarray(picture).reshape(size, size, channels)
