"""From a file to pixels: the one place where a picture is decoded; `images.fitting` brings it to size.

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
import os
import stat
from io import BytesIO
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from convsmith.errors import DataError, UsageError
from convsmith.images.impostors import impostor

RULES = 1  # raise it when the pixels of any picture change: pixel caches of older rules are then not reused
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
PIXEL_CAP = (
    2**26
)  # 67 MP, 201 MB as RGB: above the common phone cameras, below the decompression bombs seen in the wild
WHITE = 255
HELD = 2**28  # bytes; a larger file, such as a stack of many pages, is not held in memory but read as it is decoded
LUMA = 192  # pixels; shorter side from which on `decode_file` can spare a JPEG's colours

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


class Decoded(NamedTuple):
    """What `decode_file` gives.

    Args:
        picture: a loaded `L` or `RGB` image of Pillow's where it has 8 bits, which spares the audit the copies; an
            array `[H, W, C]` where it is deeper or was picked.
        forms: the rules of `FORMS_SEEN` that touched it.
        channels: 1 or 3; 3 also where colours were spared.
        content: SHA-256 of the file's bytes.
    """

    picture: Image.Image | np.ndarray
    forms: frozenset[str]
    channels: int
    content: bytes


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
    _check_pick(pick)
    if isinstance(source, Image.Image):
        picture, forms, _ = _pixels(source, "image", "", pick)
    elif isinstance(source, bytes):
        picture, forms, _ = _decode(BytesIO(source), f"image of {len(source)} bytes", len(source), "", pick)
    else:
        picture, forms, *_ = decode_file(source, pick)
    return as_array(picture), forms


def decode_file(path: str | os.PathLike[str], pick: tuple[int, ...] | None = None, *, luma: bool = False) -> Decoded:
    """Read a file once, hash what was read, and decode that.

    Args:
        path: which.
        pick: as in `decode`.
        luma: whether the luma of a colour JPEG of `LUMA` and more pixels a side is enough: it is decoded like all of
            it, and its colours are skipped, which takes two thirds of the time. Its values are JPEG's own, so they may
            differ by some grey levels from those of the RGB picture where that had to be cut at 0 or 255.

    Raises:
        UnreadableImage: as `decode`.
    """
    _check_pick(pick)
    name = shown(os.fspath(path))
    try:
        with open(path, "rb", opener=_open_file) as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableImage(name, "not a file", mend="Give the path of an image file.", lasting=False)
            extension = os.path.splitext(path)[1].lower()  # noqa: PTH122
            if status.st_size > HELD:
                content = hashlib.file_digest(stream, "sha256").digest()
                stream.seek(0)
                return Decoded(*_decode(stream, name, status.st_size, extension, pick, luma=luma), content)
            data = stream.read()
        content = hashlib.sha256(data).digest()
        return Decoded(*_decode(BytesIO(data), name, len(data), extension, pick, luma=luma), content)
    except FileNotFoundError:
        mend = "Put it back, or start again so that the data is listed anew."
        raise UnreadableImage(name, "the file is not there", mend=mend, lasting=False) from None
    except IsADirectoryError:
        raise UnreadableImage(name, "not a file", mend="Give the path of an image file.", lasting=False) from None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        raise UnreadableImage(name, str(getattr(error, "strerror", None) or error), lasting=False) from error


def as_array(picture: Image.Image | np.ndarray) -> np.ndarray:
    """Give what was decoded as `[H, W, C]`."""
    pixels = picture if isinstance(picture, np.ndarray) else np.array(picture)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def decoder() -> str:
    """Name what turns bytes into pixels, with its versions: another one may round otherwise."""
    jpeg = features.version("libjpeg_turbo") or features.version("jpg")
    return f"Pillow {Image.__version__} jpeg {jpeg} webp {features.version('webp')}"


def shown(path: str) -> str:
    """Write a path so that it can be printed and encoded anywhere: a byte that is no UTF-8 is shown as `\\xNN`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _open_file(path: str, flags: int) -> int:
    """Open without waiting: a named pipe would keep the audit until somebody writes to it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check_pick(pick: tuple[int, ...] | None) -> None:
    if pick is not None and (len(pick) not in (1, 3) or min(pick) < 0):
        raise UsageError(f"data.channels is {list(pick)}.", mend="Name one plane or three, counted from 0.")


def _decode(
    stream: BinaryIO, name: str, length: int, extension: str, pick: tuple[int, ...] | None, *, luma: bool = False
) -> tuple[Image.Image | np.ndarray, frozenset[str], int]:
    if length == 0:
        raise UnreadableImage(name, "the file is empty", mend="Copy it again from where it came.")
    try:
        with Image.open(stream, formats=FORMATS) as image:
            return _pixels(image, name, extension, pick, luma=luma)
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
    image: Image.Image, name: str, extension: str, pick: tuple[int, ...] | None, *, luma: bool = False
) -> tuple[Image.Image | np.ndarray, frozenset[str], int]:
    """Decode: the picture, the rules that touched it, and its channels."""
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
        return _paged(image, name, pages, pick, forms), frozenset(forms), len(pick)
    _refuse_unsuitable(image, name, picked=pick is not None)
    if luma and pick is None and _without_colours(image):
        return _upright_values(image, name, forms), frozenset(forms - {"grey"}), 3
    picture = _upright_values(image, name, forms)
    if image.format in ("GIF", "WEBP", "PNG") and _animated(image):
        forms.add("animated")
    if pick is not None:
        picture = _channels(picture, name, pick)
    grey = picture.shape[2] == 1 if isinstance(picture, np.ndarray) else picture.mode == "L"
    return picture, frozenset(forms), 1 if grey else 3


def _without_colours(image: Image.Image) -> bool:
    """Have a JPEG that is opened, and not loaded yet, give its luma alone; false where it has to be decoded whole."""
    if image.format in ("JPEG", "MPO") and image.mode == "RGB" and min(image.size) >= LUMA:
        return image.draft("L", None) is not None  # without a size it keeps its own
    return False


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
        plane = as_array(_upright_values(image, name, forms))
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
    pixels = as_array(picture)
    _refuse_missing(name, pixels.shape[2], pick, "channel")
    return np.ascontiguousarray(pixels[..., list(pick)])


def _refuse_missing(name: str, number: int, pick: tuple[int, ...], kind: str) -> None:
    if max(pick) >= number:
        mend = f"Name those it has in data.channels, counted from 0: 0{f' to {number - 1}' if number > 1 else ''}."
        reason = f"data.channels asks for {kind} {max(pick)}, and it has {number} that can be read"
        raise UnreadableImage(name, reason, mend=mend)


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
